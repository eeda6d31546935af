// A session as a whole: copied from one of its events on, written out, read in. docs/events.md has the file's format.
#include "base/json.hh"
#include "daemon/agent/mode.hh"
#include "daemon/agent/progress.hh"
#include "daemon/agent/sessions.hh"
#include "daemon/answers.hh"
#include "daemon/api/body.hh"
#include "daemon/api/handlers.hh"
#include "daemon/api/session_file.hh"
#include "daemon/api/session_json.hh"
#include "daemon/daemon.hh"
#include "daemon/limits.hh"

namespace torpor::api {

std::string created_body(const store::Session& row, std::string_view by, std::string_view parent, int64_t at) {
    JsonWriter json;
    json.begin_object().member("version", event_version).member("folder", row.folder).member("model", row.model).member("mode", row.mode).member("by", by);
    if (!parent.empty()) json.key("parent").begin_object().member("session", parent).member("at", at).end_object();
    return json.end_object().take();
}

namespace {

// What waits or is under way at the end of a copy is the first session's to do, not the copy's.
Result<void> end_what_is_open(store::Connection& db, const std::string& id, const agent::Progress& progress, std::string_view reason) {
    const int64_t now = store::now_ms();
    auto copied = store::append_event(db, id, "copied", "{\"by\":\"torpord\"}", now);
    if (!copied) return Failure(copied.error());
    if (progress.turn().is_under_way) {
        JsonWriter body;
        body.begin_object().member("turn", progress.turn().number).member("outcome", "interrupted").member("reason", reason).member("can_retry", true);
        auto ended = store::append_event(db, id, "turn_ended", body.end_object().text(), now);
        if (!ended) return Failure(ended.error());
    }
    for (const int64_t prompt : progress.waiting()) {
        auto withdrawn = store::append_event(db, id, "prompt_withdrawn", fmt::format(R"({{"prompt":{},"by":"torpord"}})", prompt), now);
        if (!withdrawn) return Failure(withdrawn.error());
    }
    return {};
}

// Its events from the second to `at`, into `copy`, which has one.
Result<void> copy_events(store::Connection& db, const std::string& from, const store::Session& copy, int64_t at) {
    agent::Progress progress;
    for (int64_t after = 1; after < at;) {
        auto events = store::events_after(db, from, after, transfer_events_max, transfer_bytes_max);
        if (!events) return Failure(events.error());
        if (events->empty()) break;
        for (const store::Event& event : *events) {
            after = event.seq;
            if (event.seq > at) break;
            progress.add(event);
            auto put = store::append_event(db, copy.id, event.kind, event.body, event.at_ms, text_of(event));
            if (!put) return Failure(put.error());
        }
    }
    return end_what_is_open(db, copy.id, progress, fmt::format("the session was copied up to here from {}", from));
}

}  // namespace

void fork_session(Call& call, http::Response& response) {
    auto body = Body::parse(call.body.text, {"at", "title"});
    if (!body) return answer_error(response, body.error());
    uint32_t at = 0;
    body->count("at", at);
    store::Session copy;
    body->text("title", copy.title);
    if (body->error()) return answer_error(response, *body->error());
    copy.id = store::new_session_id();
    const std::string& from = call.parameters[0];
    auto done = call.daemon.store.write([&](store::Connection& db) -> Result<void> {
        auto row = store::find_session(db, from);
        if (!row) return Failure(row.error());
        if (at == 0) at = static_cast<uint32_t>(row->last_seq);
        if (at > row->last_seq) return fail(Kind::invalid, "session {} has {} events, so it cannot be forked at {}", from, row->last_seq, at);
        copy.folder = row->folder;
        copy.model = row->model;
        copy.mode = row->mode;
        copy.parent = from;
        if (copy.title.empty()) copy.title = row->title;
        copy.created_at_ms = store::now_ms();
        if (auto added = store::add_session(db, copy); !added) return added;
        auto created = store::append_event(db, copy.id, "created", created_body(copy, call.principal.name, from, at), copy.created_at_ms);
        if (!created) return Failure(created.error());
        if (auto shared = store::share_contents(db, from, copy.id); !shared) return shared;
        return copy_events(db, from, copy, at);
    });
    if (!done) return answer_error(response, done.error());
    answer_json(response, 201, fmt::format(R"({{"id":"{}"}})", copy.id));
}

void export_session(Call& call, http::Response& response) {
    const std::string format = call.request.has_param("format") ? call.request.get_param_value("format") : "jsonl";
    if (format != "jsonl" && format != "md") return answer_error(response, {Kind::invalid, fmt::format("'{}' is no format; it is jsonl or md", format.substr(0, 64)), {}});
    auto row = call.daemon.store.read([&](store::Connection& db) { return store::find_session(db, call.parameters[0]); });
    if (!row) return answer_error(response, row.error());
    auto writer = std::make_shared<SessionWriter>(call.daemon.store, *row, format == "md");
    response.set_chunked_content_provider(format == "md" ? "text/markdown; charset=utf-8" : "application/jsonl",
                                          [writer, slot = call.long_slot](size_t, httplib::DataSink& sink) {
                                              auto piece = writer->next();
                                              if (!piece) return false;  // cut short: the client sees that the end is missing
                                              if (piece->empty()) {
                                                  sink.done();
                                                  return true;
                                              }
                                              return sink.write(piece->data(), piece->size());
                                          });
}

void import_session(Call& call, http::Response& response) {
    store::Session row;
    row.id = store::new_session_id();
    if (call.request.has_param("folder")) {
        auto folder = check_folder(call.request.get_param_value("folder"));
        if (!folder) return answer_error(response, folder.error());
        row.folder = *folder;
    }
    auto done = call.daemon.store.write([&](store::Connection& db) -> Result<void> {
        SessionReader reader(db, row, call.principal.name);
        if (auto read = reader.read(call.body.text); !read) return read;
        if (row.mode == agent::name_of(agent::Mode::danger_full_access)) {
            // Nobody here chose that.
            const std::string mode(agent::name_of(agent::Mode::workspace_write));
            auto set = store::append_event(db, row.id, "set", fmt::format(R"({{"by":"torpord","mode":"{}"}})", mode), store::now_ms(), {}, {.mode = mode});
            if (!set) return Failure(set.error());
        }
        return end_what_is_open(db, row.id, reader.progress(), "the session was imported up to here");
    });
    if (!done) return answer_error(response, done.error());
    answer_json(response, 201, fmt::format(R"({{"id":"{}"}})", row.id));
}

}  // namespace torpor::api
