#include "daemon/api/session_file.hh"

#include "base/base64.hh"
#include "base/json.hh"
#include "daemon/agent/event_body.hh"
#include "daemon/agent/mode.hh"
#include "daemon/agent/progress.hh"
#include "daemon/limits.hh"

#include <algorithm>

namespace torpor::api {

namespace {

namespace dom = simdjson::dom;
using agent::EventBody;

// A fence that nothing in the text closes.
std::string fenced(std::string_view text) {
    std::string fence = "```";
    while (text.find(fence) != std::string_view::npos) fence += '`';
    return fmt::format("{}\n{}{}{}\n\n", fence, text, text.ends_with('\n') ? "" : "\n", fence);
}

std::string markdown_of(const store::Event& event) {
    const EventBody body(event.body);
    if (event.kind == "prompt") return fmt::format("## {}\n\n{}\n\n", body.text("by"), body.text("text"));
    if (event.kind == "steered") return fmt::format("**{}:** {}\n\n", body.text("by"), body.text("text"));
    if (event.kind == "text") return body.text("text") + "\n\n";
    if (event.kind == "tool_call") return fmt::format("**{}**\n\n{}", body.text("tool"), fenced(body.has("input") ? body.json("input") : body.text("malformed")));
    if (event.kind == "tool_result") return fmt::format("{}:\n\n{}", body.text("outcome"), fenced(body.text("output")));
    if (event.kind == "turn_ended" && body.text("outcome") != "done") return fmt::format("*{}: {}*\n\n", body.text("outcome"), body.text("reason"));
    return {};
}

// The hashes of contents that an event refers to.
std::vector<std::string> contents_of(const EventBody& body) {
    std::vector<std::string> hashes;
    if (const std::string whole = body.text("content"); !whole.empty()) hashes.push_back(whole);
    if (const std::string system = body.text("system"); !system.empty()) hashes.push_back(system);
    dom::array images;
    if (!body.get("images", images)) return hashes;
    for (const dom::element image : images) {
        std::string_view hash;
        if (!image["content"].get(hash)) hashes.emplace_back(hash);
    }
    return hashes;
}

bool is_kind(std::string_view kind) {
    return !kind.empty() && kind.size() <= 64 && std::ranges::all_of(kind, [](char c) { return (c >= 'a' && c <= 'z') || c == '_'; });
}

}  // namespace

std::string text_of(const store::Event& event) {
    if (event.kind != "prompt" && event.kind != "steered" && event.kind != "text") return {};
    return EventBody(event.body).text("text");
}

Result<void> SessionWriter::write_event(store::Connection& db, const store::Event& event, std::string& out) {
    if (is_markdown_) {
        out += markdown_of(event);
        return {};
    }
    for (const std::string& hash : contents_of(EventBody(event.body))) {
        if (!contents_.insert(hash).second) continue;
        auto bytes = store::find_content(db, row_.id, hash);
        if (!bytes && bytes.error().kind != Kind::not_found) return Failure(bytes.error());
        if (bytes) out += fmt::format("{{\"content\":\"{}\",\"data\":\"{}\"}}\n", hash, to_base64(*bytes));
    }
    out += fmt::format(R"({{"seq":{},"kind":"{}","at_ms":{},"body":{}}})", event.seq, event.kind, event.at_ms, event.body);
    out += '\n';
    return {};
}

Result<std::string> SessionWriter::next() {
    std::string out;
    if (!has_begun_) {
        has_begun_ = true;
        if (is_markdown_) {
            out = fmt::format("# {}\n\n{}, {}\n\n", row_.title.empty() ? row_.id : row_.title, row_.folder, row_.model);
        } else {
            JsonWriter json;
            json.begin_object().member("torpor_session", event_version).member("title", row_.title).end_object();
            out = json.take() + "\n";
        }
    }
    // Events that are nothing in Markdown give no bytes, and no bytes are the end.
    while (out.empty()) {
        if (at_ >= row_.last_seq) return out;
        auto read = store_.read([&](store::Connection& db) -> Result<void> {
            auto events = store::events_after(db, row_.id, at_, transfer_events_max, transfer_bytes_max);
            if (!events) return Failure(events.error());
            if (events->empty()) at_ = row_.last_seq;
            for (const store::Event& event : *events) {
                at_ = event.seq;
                if (event.seq > row_.last_seq) break;
                if (auto written = write_event(db, event, out); !written) return written;
            }
            return {};
        });
        if (!read) return Failure(read.error());
    }
    return out;
}

// ---- reading

Result<void> SessionReader::create(const store::Event& event) {
    const EventBody body(event.body);
    if (event.kind != "created") return fail(Kind::invalid, "the first event must be 'created', not '{}'", event.kind);
    if (body.number("version") != event_version) {
        return fail(Kind::invalid, "its events are of version {}, and this Torpor knows version {} only", body.number("version"), event_version);
    }
    if (row_.folder.empty()) row_.folder = body.text("folder");
    row_.model = body.text("model");
    row_.mode = body.text("mode");
    if (!row_.folder.starts_with('/') || row_.model.empty() || !agent::parse_mode(row_.mode)) {
        return fail(Kind::invalid, "'created' needs an absolute 'folder', a 'model' and a 'mode'");
    }
    row_.created_at_ms = store::now_ms();
    return store::add_session(db_, row_);
}

Result<void> SessionReader::take(std::string_view line) {
    dom::parser parser;
    dom::object object;
    if (parser.parse(line.data(), line.size()).get(object)) return fail(Kind::invalid, "it is no JSON object");
    std::string_view hash, data;
    if (!object["content"].get(hash) && !object["data"].get(data)) {
        if (seq_ == 0) return fail(Kind::invalid, "a content comes before the event 'created'");
        auto bytes = from_base64(data);
        if (!bytes) return fail(Kind::invalid, "'data' is not base64");
        auto put = store::put_content(db_, row_.id, *bytes);
        if (!put) return Failure(put.error());
        if (*put != hash) return fail(Kind::invalid, "the content is not what its hash {} says", hash.substr(0, 64));
        return {};
    }
    store::Event event;
    std::string_view kind;
    dom::object body;
    if (object["seq"].get(event.seq) || object["kind"].get(kind) || object["at_ms"].get(event.at_ms) || object["body"].get(body)) {
        return fail(Kind::invalid, "an event has 'seq', 'kind', 'at_ms' and 'body'");
    }
    if (!is_kind(kind)) return fail(Kind::invalid, "'{}' is no kind of event", kind.substr(0, 64));
    if (event.seq != seq_ + 1) return fail(Kind::invalid, "event {} comes after event {}", event.seq, seq_);
    event.kind = kind;
    event.body = simdjson::minify(body);
    if (seq_ == 0) {
        if (auto created = create(event); !created) return created;
    }
    ++seq_;
    progress_.add(event);
    store::SessionChange change;
    if (event.kind == "set") {
        const EventBody fields(event.body);
        if (fields.has("model")) change.model = fields.text("model");
        if (const std::string mode = fields.text("mode"); agent::parse_mode(mode)) change.mode = row_.mode = mode;
    }
    auto put = store::append_event(db_, row_.id, event.kind, event.body, event.at_ms, text_of(event), change);
    if (!put) return Failure(put.error());
    return {};
}

Result<void> SessionReader::read(std::string_view text) {
    size_t number = 0;
    for (size_t at = 0; at < text.size();) {
        const size_t end = std::min(text.find('\n', at), text.size());
        const std::string_view line = text.substr(at, end - at);
        at = end + 1;
        ++number;
        if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
        Result<void> taken;
        if (number == 1) {
            dom::parser parser;
            dom::object object;
            int64_t version = 0;
            std::string_view title;
            if (parser.parse(line.data(), line.size()).get(object) || object["torpor_session"].get(version)) {
                taken = fail(Kind::invalid, "this is no exported session: its first line has no 'torpor_session'");
            } else if (!object["title"].get(title)) {
                row_.title = title.substr(0, title_bytes_max);
            }
        } else {
            taken = take(line);
        }
        if (taken) continue;
        Error error = taken.error();
        if (error.kind == Kind::invalid) error.message = fmt::format("line {}: {}", number, error.message);
        return Failure(std::move(error));
    }
    if (seq_ == 0) return fail(Kind::invalid, "there is no event in it");
    return {};
}

}  // namespace torpor::api
