#include "clients/cli/session.hh"

#include "base/json.hh"
#include "base/sse.hh"
#include "base/text.hh"
#include "clients/cli/output.hh"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <optional>
#include <thread>

namespace torpor::cli {

namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::seconds reconnect_time_max{60};
constexpr std::chrono::milliseconds reconnect_gap{200};
constexpr size_t event_bytes_max = 32 * 1024 * 1024;
constexpr size_t lines_shown = 8, line_bytes_shown = 160;  // of a tool's output

// The first lines of it, each cut to a line of a terminal.
std::string shortened(std::string_view text) {
    std::string out;
    size_t lines = 0, left = 0;
    for (size_t at = 0; at < text.size();) {
        const size_t end = std::min(text.find('\n', at), text.size());
        if (lines++ < lines_shown) {
            std::string_view line = text.substr(at, std::min(end - at, line_bytes_shown));
            out += fmt::format("  {}{}\n", line, line.size() < end - at ? "…" : "");
        } else {
            ++left;
        }
        at = end + 1;
    }
    if (left > 0) out += fmt::format("  … {} more lines\n", left);
    return out;
}

}  // namespace

Result<void> follow_session(Client& client, const std::string& id, int64_t& last, const std::function<bool(const SessionEvent&)>& take) {
    std::optional<Clock::time_point> lost_at;
    for (;;) {
        bool wants_more = true;
        SseParser parser(event_bytes_max);
        Result<void> good;
        const auto streamed = client.stream("GET", fmt::format("/api/sessions/{}/events?after={}", id, last), "", [&](std::string_view bytes) {
            lost_at.reset();
            const auto fed = parser.feed(bytes, [&](std::string_view kind, std::string_view data) {
                if (!wants_more) return;
                auto parsed = Answer::parse(std::string(data));
                if (!parsed) return;
                const SessionEvent event{Answer::number(parsed->root(), "seq"), kind, parsed->root(), data};
                if (event.seq > 0) last = event.seq;
                wants_more = take(event) && kind != "removed";
            });
            if (!fed) good = Failure(fed.error());
            return wants_more && good.has_value();
        });
        if (!good) return good;
        if (!wants_more || client.has_ended()) return {};
        if (!streamed && streamed.error().kind != Kind::unavailable && streamed.error().kind != Kind::no_daemon) return Failure(streamed.error());
        if (!lost_at) lost_at = Clock::now();
        if (Clock::now() - *lost_at > reconnect_time_max) {
            return streamed ? fail(Kind::unavailable, "torpord ends the stream of events again and again") : Failure(streamed.error());
        }
        std::this_thread::sleep_for(reconnect_gap);
    }
}

Result<std::string> create_session(Client& client, const NewSession& session) {
    JsonWriter json;
    json.begin_object().member("folder", session.folder);
    if (!session.model.empty()) json.member("model", session.model);
    if (!session.mode.empty()) json.member("mode", session.mode);
    json.key("environment").begin_object();
    for (char** at = environ; *at != nullptr; ++at) {
        const std::string_view variable(*at);
        const size_t equals = variable.find('=');
        if (equals == std::string_view::npos) continue;
        // The daemon keeps a list of what may pass; what looks like a secret does not even get there.
        const std::string_view name = variable.substr(0, equals);
        const auto says = [&](std::string_view word) { return name.find(word) != std::string_view::npos; };
        if (says("KEY") || says("TOKEN") || says("SECRET") || says("PASSWORD")) continue;
        json.member(name, variable.substr(equals + 1));
    }
    auto made = client.post("/api/sessions", json.end_object().end_object().text());
    if (!made) return Failure(made.error());
    return std::string(Answer::text(made->root(), "id"));
}

Result<std::string> last_session(Client& client, const std::string& folder) {
    auto found = client.get("/api/sessions?limit=1&folder=" + escape_path(folder));
    if (!found) return Failure(found.error());
    for (const simdjson::dom::element session : Answer::list(found->root(), "sessions")) return std::string(Answer::text(session, "id"));
    return fail(Kind::not_found, "there is no session in {} yet", folder);
}

Result<std::string> complete_session(Client& client, const std::string& beginning) {
    auto found = client.get("/api/sessions/" + escape_path(beginning));
    if (!found) return Failure(found.error());
    return std::string(Answer::text(found->root(), "id"));
}

Result<int64_t> send_prompt(Client& client, const std::string& id, const std::string& text, const std::string& schema) {
    JsonWriter json;
    json.begin_object().member("text", text);
    if (!schema.empty()) json.key("schema").raw(schema);
    json.end_object();
    auto sent = client.post("/api/sessions/" + id + "/prompt", json.text());
    if (!sent) return Failure(sent.error());
    return Answer::number(sent->root(), "event");
}

bool is_allowed_by(const std::vector<std::string>& given, std::string_view tool, simdjson::dom::array rules) {
    const auto allows = [&](std::string_view rule) {
        return std::ranges::any_of(given, [&](const std::string& one) {
            if (one == tool || one == rule) return true;
            if (!one.ends_with(":*)")) return false;
            // "bash(git:*)": the word git, alone or with more behind it.
            const std::string_view prefix = std::string_view(one).substr(0, one.size() - 3);
            if (!rule.starts_with(prefix) || rule.size() == prefix.size()) return false;
            return rule[prefix.size()] == ' ' || rule[prefix.size()] == ')';
        });
    };
    bool has_one = false;
    for (const simdjson::dom::element element : rules) {
        std::string_view rule;
        has_one = true;
        if (element.get(rule) || !allows(rule)) return false;
    }
    return has_one || std::ranges::find(given, tool) != given.end();
}

SessionPrinter::SessionPrinter(std::FILE* words, std::FILE* around)
    : words_(words), around_(around), is_terminal_(::isatty(::fileno(words)) != 0), has_style_(may_style(::fileno(around))) {}

void SessionPrinter::fresh_line() {
    if (is_at_begin_) return;
    std::fputc('\n', words_);
    std::fflush(words_);
    is_at_begin_ = true;
}

void SessionPrinter::say(std::string_view piece) {
    if (piece.empty()) return;
    said_ += piece;
    const std::string shown = is_terminal_ ? sanitiser_.take(piece) : std::string(piece);
    std::fwrite(shown.data(), 1, shown.size(), words_);
    std::fflush(words_);
    if (!shown.empty()) is_at_begin_ = shown.back() == '\n';
}

void SessionPrinter::note(const std::string& line) {
    fresh_line();
    const std::string shown = sanitise(line);
    std::fputs(has_style_ ? fmt::format("\033[2m{}\033[0m\n", shown).c_str() : (shown + "\n").c_str(), around_);
    std::fflush(around_);
}

void SessionPrinter::delta(simdjson::dom::element data) {
    if (Answer::text(data, "kind") != "text") return;
    size_t& printed = printed_[{Answer::number(data, "answer"), Answer::number(data, "block")}];
    const auto offset = static_cast<size_t>(Answer::number(data, "offset"));
    const std::string_view piece = Answer::text(data, "text");
    if (offset > printed || offset + piece.size() <= printed) return;  // the whole block comes later; or it is known
    say(piece.substr(printed - offset));
    printed = offset + piece.size();
}

void SessionPrinter::text(simdjson::dom::element data) {
    size_t& printed = printed_[{Answer::number(data, "answer"), Answer::number(data, "block")}];
    const std::string_view whole = Answer::text(data, "text");
    if (printed < whole.size()) say(whole.substr(printed));
    printed = whole.size();
    say(sanitiser_.end());
    fresh_line();
}

void SessionPrinter::take(const SessionEvent& event) {
    const auto& data = event.data;
    if (const int64_t turn = Answer::number(data, "turn"); turn != turn_ && turn > 0) {
        turn_ = turn;
        printed_.clear();
        said_.clear();
    }
    if (event.kind == "delta") return delta(data);
    if (event.kind == "text") return text(data);
    if (event.kind == "tool_call") return note(fmt::format("{} {}", Answer::text(data, "tool"), [&] {
        simdjson::dom::element input;
        const std::string json = data["input"].get(input) ? std::string(Answer::text(data, "malformed")) : simdjson::minify(input);
        return json.size() > line_bytes_shown ? json.substr(0, line_bytes_shown) + "…" : json;
    }()));
    if (event.kind == "tool_result") {
        std::string shown = shortened(Answer::text(data, "output"));
        if (shown.ends_with('\n')) shown.pop_back();
        const std::string_view outcome = Answer::text(data, "outcome");
        return note(outcome == "done" ? shown : fmt::format("  {}:\n{}", outcome, shown));
    }
    if (event.kind == "retried") return note(fmt::format("{}; again in {}", Answer::text(data, "reason"), format_duration(std::chrono::milliseconds(Answer::number(data, "wait_ms")))));
    if (event.kind == "tool_started" && !Answer::text(data, "session").empty()) {
        return note(fmt::format("  an agent works on it; torpor attach {} watches", Answer::text(data, "session").substr(0, 14)));
    }
    if (event.kind == "decided" || event.kind == "agent_decided") return note(fmt::format("{}: {}", Answer::text(data, "by"), Answer::text(data, "answer")));
    if (event.kind == "turn_resumed") return note("torpord was started again, and goes on");
    if (event.kind == "turn_ended" && Answer::text(data, "outcome") != "done") {
        const std::string_view reason = Answer::text(data, "reason");
        return note(fmt::format("{}{}{}", Answer::text(data, "outcome"), reason.empty() ? "" : ": ", reason));
    }
}

}  // namespace torpor::cli
