// Sessions as such: made, listed, read, changed, followed. What happens within them is turns.cc's.
#include "base/json.hh"
#include "base/text.hh"
#include "daemon/agent/mode.hh"
#include "daemon/agent/sessions.hh"
#include "daemon/agent/turns.hh"
#include "daemon/answers.hh"
#include "daemon/api/body.hh"
#include "daemon/api/event_streams.hh"
#include "daemon/api/handlers.hh"
#include "daemon/api/session_json.hh"
#include "daemon/daemon.hh"
#include "daemon/limits.hh"
#include "daemon/llm/providers.hh"

#include <charconv>
#include <filesystem>

namespace torpor::api {

void write_session(JsonWriter& json, const store::Session& session) {
    json.begin_object()
        .member("id", session.id)
        .member("folder", session.folder)
        .member("title", session.title)
        .member("model", session.model)
        .member("mode", session.mode)
        .member("state", agent::name_of(session.state))
        .member("archived", session.is_archived);
    json.key("parent");
    if (session.parent.empty()) {
        json.null();
    } else {
        json.value(session.parent);
    }
    if (!session.caller.empty()) json.member("caller", session.caller);
    json.member("events", session.last_seq).member("created_at_ms", session.created_at_ms).member("updated_at_ms", session.updated_at_ms);
}

Result<std::string> check_folder(const std::string& folder) {
    if (folder.empty()) return fail(Kind::invalid, "give 'folder': where the session works, an absolute path");
    if (!folder.starts_with('/')) return fail(Kind::invalid, "'folder' must be an absolute path, not '{}'", folder);
    std::error_code code;
    const std::filesystem::path place = std::filesystem::canonical(folder, code);
    if (code || !std::filesystem::is_directory(place, code)) return fail(Kind::invalid, "there is no folder {}", folder);
    return place.string();
}

Result<void> check_mode(const std::string& mode) {
    if (agent::parse_mode(mode)) return {};
    return fail(Kind::invalid, "'{}' is no mode; it is read-only, workspace-write or danger-full-access", mode.substr(0, 64));
}

namespace {

// A number of the query; `or_else` where there is none.
Result<int64_t> number_of(const http::Request& request, const char* name, int64_t or_else) {
    if (!request.has_param(name)) return or_else;
    const std::string text = request.get_param_value(name);
    int64_t number = 0;
    const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (code != std::errc{} || end != text.data() + text.size() || number < 0) return fail(Kind::invalid, "'{}' must be a number, not '{}'", name, text.substr(0, 64));
    return number;
}

// True, false, or its absence.
Result<bool> truth_of(const http::Request& request, const char* name, bool or_else) {
    if (!request.has_param(name)) return or_else;
    const std::string text = request.get_param_value(name);
    if (text == "true" || text == "1") return true;
    if (text == "false" || text == "0") return false;
    return fail(Kind::invalid, "'{}' must be true or false, not '{}'", name, text.substr(0, 64));
}

Result<store::SessionQuery> query_of(const http::Request& request) {
    store::SessionQuery query;
    query.folder = request.get_param_value("folder");
    query.text = request.get_param_value("text");
    if (request.has_param("state")) {
        const std::string state = request.get_param_value("state");
        for (const auto each : {store::SessionState::idle, store::SessionState::running, store::SessionState::asking}) {
            if (state == agent::name_of(each)) query.state = each;
        }
        if (!query.state) return fail(Kind::invalid, "'state' is idle, running or asking, not '{}'", state.substr(0, 64));
    }
    auto archived = truth_of(request, "archived", false);
    if (!archived) return Failure(archived.error());
    query.with_archived = *archived;
    auto called = truth_of(request, "called", false);
    if (!called) return Failure(called.error());
    query.with_called = *called;
    auto before = number_of(request, "before", 0);
    if (!before) return Failure(before.error());
    query.before_ms = *before;
    auto limit = number_of(request, "limit", sessions_listed_default);
    if (!limit) return Failure(limit.error());
    query.count_max = static_cast<size_t>(std::clamp<int64_t>(*limit, 1, sessions_listed_max));
    return query;
}

void answer_session(Call& call, http::Response& response, int status, const std::string& id) {
    auto row = call.daemon.store.read([&](store::Connection& db) { return store::find_session(db, id); });
    if (!row) return answer_error(response, row.error());
    JsonWriter json;
    write_session(json, *row);
    answer_json(response, status, json.end_object().take());
}

// What `set` says: only that which changed.
struct Changes {
    store::SessionChange change;
    std::string body;
};
Result<Changes> changes_of(Call& call, Body& body) {
    Changes changes;
    std::string model, mode, title;
    bool archived = false;
    body.text("model", model);
    body.text("mode", mode);
    body.text("title", title);
    body.truth("archived", archived);
    if (body.error()) return Failure(*body.error());
    JsonWriter json;
    json.begin_object().member("by", call.principal.name);
    if (body.has("model")) {
        auto chosen = call.daemon.providers->choose(model);
        if (!chosen) return Failure(chosen.error());
        changes.change.model = model;
        json.member("model", model);
    }
    if (body.has("mode")) {
        if (auto good = check_mode(mode); !good) return Failure(good.error());
        changes.change.mode = mode;
        json.member("mode", mode);
    }
    if (body.has("title")) {
        if (title.size() > title_bytes_max) return fail(Kind::too_large, "a title has at most {} bytes", title_bytes_max);
        changes.change.title = title;
        json.member("title", title);
    }
    if (body.has("archived")) {
        changes.change.is_archived = archived;
        json.member("archived", archived);
    }
    changes.body = json.end_object().take();
    return changes;
}

}  // namespace

void create_session(Call& call, http::Response& response) {
    auto body = Body::parse(call.body.text, {"folder", "model", "mode", "title", "environment"});
    if (!body) return answer_error(response, body.error());
    store::Session row;
    row.mode = "workspace-write";
    agent::Environment environment;
    body->text("folder", row.folder);
    body->text("model", row.model);
    body->text("mode", row.mode);
    body->text("title", row.title);
    body->pairs("environment", environment);
    if (body->error()) return answer_error(response, *body->error());
    auto folder = check_folder(row.folder);
    if (!folder) return answer_error(response, folder.error());
    row.folder = *folder;
    if (auto good = check_mode(row.mode); !good) return answer_error(response, good.error());
    if (row.title.size() > title_bytes_max) return answer_error(response, {Kind::too_large, fmt::format("a title has at most {} bytes", title_bytes_max), {}});
    auto chosen = call.daemon.providers->choose(row.model);
    if (!chosen) return answer_error(response, chosen.error());
    if (row.model.empty()) row.model = chosen->facts.provider + "/" + chosen->facts.model;
    row.id = store::new_session_id();
    row.created_at_ms = store::now_ms();
    auto session = call.daemon.sessions->create(row, created_body(row, call.principal.name, {}, 0));
    if (!session) return answer_error(response, session.error());
    if (!environment.empty()) call.daemon.turns->set_environment(row.id, environment);
    answer_session(call, response, 201, row.id);
}

void list_sessions(Call& call, http::Response& response) {
    auto query = query_of(call.request);
    if (!query) return answer_error(response, query.error());
    auto found = call.daemon.store.read([&](store::Connection& db) { return store::find_sessions(db, *query); });
    if (!found) return answer_error(response, found.error());
    JsonWriter json;
    json.begin_object().key("sessions").begin_array();
    for (const store::FoundSession& each : *found) {
        write_session(json, each.session);
        if (!query->text.empty()) json.member("excerpt", each.excerpt);
        json.end_object();
    }
    answer_json(response, 200, json.end_array().end_object().take());
}

void show_session(Call& call, http::Response& response) {
    auto id = call.daemon.store.read([&](store::Connection& db) { return store::complete_session_id(db, call.parameters[0]); });
    if (!id) return answer_error(response, id.error());
    answer_session(call, response, 200, *id);
}

void set_session(Call& call, http::Response& response) {
    auto body = Body::parse(call.body.text, {"model", "mode", "title", "archived"});
    if (!body) return answer_error(response, body.error());
    auto changes = changes_of(call, *body);
    if (!changes) return answer_error(response, changes.error());
    auto session = call.daemon.sessions->open(call.parameters[0]);
    if (!session) return answer_error(response, session.error());
    auto seq = (*session)->append("set", changes->body, {}, changes->change);
    if (!seq) return answer_error(response, seq.error());
    answer_session(call, response, 200, call.parameters[0]);
}

// A turn under way is ended first; what it does at that moment, it has done.
void remove_session(Call& call, http::Response& response) {
    auto removed = call.daemon.turns->remove(call.parameters[0], call.principal.name);
    if (!removed) return answer_error(response, removed.error());
    answer_json(response, 200, "{\"ok\":true}");
}

void follow_session(Call& call, http::Response& response) {
    auto session = call.daemon.sessions->open(call.parameters[0]);
    if (!session) return answer_error(response, session.error());
    auto after = number_of(call.request, "after", 0);
    if (!after) return answer_error(response, after.error());
    auto follows = truth_of(call.request, "follow", true);
    if (!follows) return answer_error(response, follows.error());
    // A browser connects again to the same address, with the number in a header.
    if (const std::string last = call.request.get_header_value("Last-Event-ID"); !last.empty()) {
        int64_t number = 0;
        const auto [end, code] = std::from_chars(last.data(), last.data() + last.size(), number);
        if (code == std::errc{} && end == last.data() + last.size() && number >= 0) *after = number;
    }
    http::detach_connection([streams = call.daemon.streams, session = std::move(*session), after = *after,
                             follows = *follows](std::unique_ptr<http::Detached> connection) {
        streams->add(session, std::move(connection), after, follows);
    });
}

void show_content(Call& call, http::Response& response) {
    auto bytes = call.daemon.store.read([&](store::Connection& db) { return store::find_content(db, call.parameters[0], call.parameters[1]); });
    if (!bytes) return answer_error(response, bytes.error());
    // Whatever it is, no browser shall take it for a page of ours.
    response.set_header("X-Content-Type-Options", "nosniff");
    response.set_header("Content-Disposition", "attachment");
    response.set_content(std::move(*bytes), "application/octet-stream");
}

}  // namespace torpor::api
