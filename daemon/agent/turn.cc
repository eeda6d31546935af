#include "daemon/agent/turn.hh"

#include "base/json.hh"
#include "base/log.hh"
#include "base/text.hh"
#include "daemon/agent/limits.hh"
#include "daemon/agent/system_prompt.hh"

#include <algorithm>

namespace torpor::agent {

Result<int64_t> Turn::append(std::string_view kind, const std::string& body, std::string_view text, const store::SessionChange& change,
                             const Session::Check& check) {
    return session_.append(kind, body, text, change, check);
}

Result<void> Turn::catch_up() {
    for (;;) {
        std::vector<store::Event> events;
        auto read = parts_.options.store.read([&](store::Connection& db) -> Result<void> {
            auto row = store::find_session(db, session_.id());
            if (!row) return Failure(row.error());
            row_ = std::move(*row);
            auto found = store::events_after(db, session_.id(), progress_.last_seq(), events_read_max, events_read_bytes_max);
            if (!found) return Failure(found.error());
            events = std::move(*found);
            return {};
        });
        if (!read) return read;
        if (events.empty()) return {};
        for (const store::Event& event : events) {
            progress_.add(event);
            context_.add(event);
        }
    }
}

Result<void> Turn::run() {
    for (;;) {
        if (parts_.is_stopping) return {};
        if (auto read = catch_up(); !read) return read;
        auto next = step();
        if (!next) return Failure(next.error());
        if (*next == Next::over) return {};
    }
}

Result<Turn::Next> Turn::step() {
    const TurnState& turn = progress_.turn();
    Result<void> done;
    std::string reason;
    if (!turn.is_under_way) {
        if (progress_.waiting().empty()) return Next::over;
        done = begin();
    } else if (turn.is_interrupted) {
        done = end_interrupted();
    } else if (std::ranges::any_of(turn.calls, [](const CallState& call) { return !call.has_result; })) {
        return do_calls();
    } else if (!turn.output.empty()) {
        done = end("done", "", "", false);
    } else if (!turn.needs_answer()) {
        if (turn.stop == "output_limit") {
            done = end("limit", "the model's answer was cut at its longest; `go on` continues it", "output_tokens", true);
        } else if (turn.stop == "refused") {
            done = end("failed", "the model refused to answer", "", true);
        } else if (!turn.schema.empty()) {
            done = remind_of_result();
        } else {
            done = end("done", "", "", false);
        }
    } else if (const std::string limit = limit_met(reason); !limit.empty()) {
        done = end("limit", reason, limit, true);
    } else {
        done = ask();
    }
    if (!done) return Failure(done.error());
    return Next::more;
}

std::string Turn::limit_met(std::string& reason) const {
    const TurnState& turn = progress_.turn();
    const TurnLimits& limits = parts_.options.limits;
    const auto met = [&](std::string_view name, std::string what) {
        reason = fmt::format("the turn met a limit: {}; retry it to go on", what);
        return std::string(name);
    };
    if (turn.answers >= limits.answers) return met("turn_answers", fmt::format("{} answers of the model", limits.answers));
    if (turn.calls_done >= limits.calls) return met("turn_calls", fmt::format("{} tool calls", limits.calls));
    if (turn.tokens() >= limits.tokens) return met("turn_tokens", fmt::format("{} tokens", limits.tokens));
    if (turn.cost >= limits.cost) return met("turn_cost", fmt::format("a cost of {}", limits.cost));
    if (turn.active_ms >= limits.time.count()) return met("turn_time", format_duration(limits.time) + " of work");
    return {};
}

Result<void> Turn::begin() {
    std::string hash = progress_.system_hash();
    if (hash.empty()) {
        const std::string text = make_system_prompt({row_.folder, parts_.options.folders.config, row_.created_at_ms});
        auto kept = parts_.options.store.write([&](store::Connection& db) -> Result<void> {
            auto put = store::put_content(db, session_.id(), text);
            if (!put) return Failure(put.error());
            hash = *put;
            return {};
        });
        if (!kept) return kept;
    }
    std::lock_guard lock(parts_.order);
    if (auto read = catch_up(); !read) return read;
    if (progress_.waiting().empty()) return {};  // withdrawn meanwhile
    const int64_t prompt = progress_.waiting().front();
    auto chosen = parts_.options.providers.choose(row_.model);
    JsonWriter body;
    body.begin_object()
        .member("turn", prompt)
        .member("prompt", prompt)
        .member("model", row_.model)
        .member("provider", chosen ? chosen->facts.provider : std::string())
        .member("mode", row_.mode)
        .member("system", hash)
        .end_object();
    auto started = append("turn_started", body.text(), {}, {.state = store::SessionState::running});
    if (!started) return Failure(started.error());
    return {};
}

Result<std::string> Turn::system_prompt() {
    auto text = parts_.options.store.read([&](store::Connection& db) { return store::find_content(db, session_.id(), progress_.system_hash()); });
    if (text) return text;
    if (text.error().kind != Kind::not_found) return text;
    // An import without it: what is told is as good, and the cache is cold anyway.
    return make_system_prompt({row_.folder, parts_.options.folders.config, row_.created_at_ms});
}

Result<void> Turn::end(std::string_view outcome, const std::string& reason, std::string_view limit, bool can_retry) {
    std::lock_guard lock(parts_.order);
    if (auto read = catch_up(); !read) return read;
    const TurnState& turn = progress_.turn();
    // What was said a moment ago is to be read, what was asked to end is ended as interrupted.
    if (outcome == "done" && ((turn.needs_answer() && turn.output.empty()) || turn.is_interrupted)) return {};
    JsonWriter body;
    body.begin_object().member("turn", turn.number).member("outcome", outcome);
    if (!reason.empty()) body.member("reason", reason);
    if (!limit.empty()) body.member("limit", limit);
    if (!turn.output.empty()) body.key("output").raw(turn.output);
    body.member("can_retry", can_retry).key("usage").begin_object();
    body.member("input", turn.usage.input_tokens).member("output", turn.usage.output_tokens);
    body.member("cache_read", turn.usage.cache_read_tokens).member("cache_write", turn.usage.cache_write_tokens).end_object();
    body.key("cost");
    if (turn.is_cost_known) {
        body.value(turn.cost);
    } else {
        body.null();
    }
    body.member("answers", turn.answers).member("calls", turn.calls_done).member("ms", turn.active_ms).end_object();
    const auto state = progress_.waiting().empty() ? store::SessionState::idle : store::SessionState::running;
    auto ended = append("turn_ended", body.text(), {}, {.state = state});
    if (!ended) return Failure(ended.error());
    parts_.stopper.renew();
    if (!row_.caller.empty()) parts_.wake(row_.caller);
    return {};
}

Result<void> Turn::remind_of_result() {
    if (progress_.turn().reminders >= result_reminders_max) {
        return end("failed", "the model ended without a result in the form that was asked for", "", true);
    }
    JsonWriter body;
    body.begin_object().member("turn", progress_.turn().number).member("by", daemon_name);
    body.member("text", fmt::format("The result is still to come: call {} with it.", structured_output_name)).end_object();
    std::lock_guard lock(parts_.order);
    if (auto read = catch_up(); !read || progress_.turn().needs_answer()) return read;
    auto steered = append("steered", body.text());
    return steered ? Result<void>() : Failure(steered.error());
}

Result<void> Turn::end_interrupted() {
    session_.clear_deltas();
    for (const CallState& call : std::vector(progress_.turn().calls)) {
        if (call.has_result) continue;
        auto given = call.is_started
                         ? give_result(call, "interrupted", {.output = "It was interrupted. It had been started and may have happened, in part or whole."}, 0)
                         : give_result(call, "skipped", {.output = "It was not run: the user interrupted the turn."}, 0);
        if (!given) return given;
    }
    return end("interrupted", "", "", true);
}

}  // namespace torpor::agent
