// Calls that begin sessions of their own (the tool Agent). Such a session is one like any other: it has its events, may be watched and
// prompted, asks its own questions, and goes on after a crash. Its caller holds no thread for it: the call is started and has no
// result until that session is idle, and the end of a turn there wakes the turn here.
#include "base/json.hh"
#include "daemon/agent/event_body.hh"
#include "daemon/agent/limits.hh"
#include "daemon/agent/turn.hh"
#include "daemon/agent/turn_ready.hh"

#include <utility>

namespace torpor::agent {

namespace {

std::string created_body(const store::Session& row, const CallState& call) {
    JsonWriter body;
    body.begin_object().member("version", 1).member("folder", row.folder).member("model", row.model).member("mode", row.mode);
    body.member("by", daemon_name).key("caller").begin_object().member("session", row.caller).member("call", call.call).end_object();
    return body.end_object().take();
}

std::string prompt_body(const std::string& text) {
    JsonWriter body;
    body.begin_object().member("by", daemon_name).member("text", text).key("images").begin_array().end_array();
    return body.end_object().take();
}

// What a session came to, from its log.
struct Outcome {
    Progress progress;
    std::string text;             // of its last answer
    std::string ended = "{}";     // its last turn_ended
    int64_t answer = 0;

    void add(const store::Event& event) {
        progress.add(event);
        if (event.kind == "turn_ended") ended = event.body;
        if (event.kind == "turn_started") text.clear();
        if (event.kind != "text") return;
        const EventBody body(event.body);
        if (std::exchange(answer, body.number("answer")) != body.number("answer")) text.clear();
        text += (text.empty() ? "" : "\n") + body.text("text");
    }
    bool is_over() const { return !progress.turn().is_under_way && progress.waiting().empty(); }
};

Result<Outcome> outcome_of(store::Store& store, const std::string& session) {
    Outcome outcome;
    for (;;) {
        auto events = store.read([&](store::Connection& db) {
            return store::events_after(db, session, outcome.progress.last_seq(), events_read_max, events_read_bytes_max);
        });
        if (!events) return Failure(events.error());
        if (events->empty()) return outcome;
        for (const store::Event& event : *events) outcome.add(event);
    }
}

std::string detail_of(const std::string& session, const EventBody& ended) {
    JsonWriter detail;
    detail.begin_object().member("session", session).member("outcome", ended.text("outcome"));
    for (const std::string_view key : {"usage", "cost", "answers", "calls"}) {
        if (const std::string value = ended.json(key); !value.empty()) detail.key(key).raw(value);
    }
    return detail.end_object().take();
}

}  // namespace

Result<bool> Turn::begin_child(Ready& ready) {
    const auto refuse = [&](const Error& error) -> Result<bool> {
        auto given = give_result(ready.call, "failed", {.output = error.text(), .failed = true}, 0);
        if (!given) return Failure(given.error());
        return false;
    };
    auto child = ready.tool->begin(ready.input, ready.context);
    if (!child) return refuse(child.error());
    store::Session row;
    row.id = store::new_session_id();
    row.folder = row_.folder;
    row.title = child->title.substr(0, title_characters_max);
    row.model = child->model.empty() ? row_.model : child->model;
    row.mode = name_of(child->mode);
    row.caller = session_.id();
    row.state = store::SessionState::running;
    row.created_at_ms = store::now_ms();
    if (auto chosen = parts_.options.providers.choose(row.model); !chosen) return refuse(chosen.error());
    JsonWriter body;
    body.begin_object().member("turn", progress_.turn().number).member("call", ready.call.call).member("session", row.id).end_object();
    // In one transaction: a call that is started has its session, and is never begun twice.
    const auto make = [&](store::Connection& db) -> Result<void> {
        if (auto added = store::add_session(db, row); !added) return added;
        auto created = store::append_event(db, row.id, "created", created_body(row, ready.call), row.created_at_ms);
        if (created) created = store::append_event(db, row.id, "prompt", prompt_body(child->prompt), row.created_at_ms, child->prompt);
        return created ? Result<void>() : Failure(created.error());
    };
    if (auto started = append("tool_started", body.text(), {}, {}, make); !started) return Failure(started.error());
    parts_.wake(row.id);
    return true;
}

Result<bool> Turn::take_child(const CallState& call) {
    auto row = parts_.options.store.read([&](store::Connection& db) { return store::find_session(db, call.session); });
    if (!row && row.error().kind != Kind::not_found) return Failure(row.error());
    Result<void> given;
    if (!row) {
        given = give_result(call, "interrupted", {.output = "Its session was removed before it had a result.", .failed = true}, 0);
    } else if (row->state != store::SessionState::idle) {
        return false;
    } else {
        auto outcome = outcome_of(parts_.options.store, call.session);
        if (!outcome) return Failure(outcome.error());
        if (!outcome->is_over()) return false;
        const EventBody ended(outcome->ended);
        const bool is_done = ended.text("outcome") == "done";
        ToolResult result;
        result.failed = !is_done;
        result.output = outcome->text.substr(0, child_result_bytes_max);
        if (!is_done) result.output += fmt::format("{}({}: {})", result.output.empty() ? "" : "\n", ended.text("outcome"), ended.text("reason"));
        if (result.output.empty()) result.output = "(it said nothing)";
        result.detail = detail_of(call.session, ended);
        given = give_result(call, is_done ? "done" : "failed", result, ended.number("ms"));
    }
    if (!given) return Failure(given.error());
    return true;
}

Result<void> Turn::tell_caller(std::string_view kind, const std::string& body) {
    if (row_.caller.empty()) return {};
    auto caller = parts_.options.sessions.open(row_.caller);
    if (!caller) return {};  // it was removed
    auto told = (*caller)->append(kind, body);
    return told ? Result<void>() : Failure(told.error());
}

}  // namespace torpor::agent
