// The tools' part of a turn: what may run, what people are asked, and what came of it.
//
// The order of a call's events is tool_call, question and decided if it was asked about, tool_started, tool_result. tool_started
// is on disk before the tool begins, so a call without it was not run, and one with it is never run again.
#include "base/json.hh"
#include "base/json_schema.hh"
#include "base/log.hh"
#include "base/text.hh"
#include "daemon/agent/limits.hh"
#include "daemon/agent/settings.hh"
#include "daemon/agent/turn.hh"
#include "daemon/agent/turn_ready.hh"

#include <algorithm>
#include <chrono>
#include <exception>
#include <system_error>
#include <thread>

namespace torpor::agent {

namespace {

using Clock = std::chrono::steady_clock;

constexpr std::string_view lost_call =
    "This call was interrupted: Torpor ended while it ran. It may have happened, in part or whole; look before you do it again.";

ToolResult failed(std::string text) {
    return {.output = std::move(text), .failed = true};
}

}  // namespace

Result<void> Turn::give_result(const CallState& call, std::string_view outcome, const ToolResult& result, int64_t ms) {
    std::string hash;
    if (!result.whole.empty()) {
        auto kept = parts_.options.store.write([&](store::Connection& db) -> Result<void> {
            auto put = store::put_content(db, session_.id(), result.whole);
            if (!put) return Failure(put.error());
            hash = *put;
            return {};
        });
        if (!kept) return kept;
    }
    JsonWriter body;
    body.begin_object().member("turn", progress_.turn().number).member("call", call.call).member("tool", call.tool);
    body.member("outcome", outcome).member("output", result.output).member("ms", ms);
    if (!result.detail.empty()) body.key("detail").raw(result.detail);
    if (!hash.empty()) body.member("content", hash);
    auto stored = append("tool_result", body.end_object().text());
    if (!stored) return Failure(stored.error());
    return {};
}

// Nothing if the call has its result by now, or people are asked (is_asked).
Result<std::optional<Turn::Ready>> Turn::prepare(const CallState& call) {
    const auto give = [&](std::string_view outcome, std::string text) -> Result<std::optional<Ready>> {
        auto given = give_result(call, outcome, failed(std::move(text)), 0);
        if (!given) return Failure(given.error());
        return std::nullopt;
    };
    Ready ready{.call = call, .tool = find_tool(call.tool)};
    if (ready.tool == nullptr) {
        std::vector<std::string> names;
        for (const Tool& tool : tools()) names.emplace_back(tool.name);
        return give("failed", fmt::format("there is no tool '{}'{}; there are {}", call.tool.substr(0, 100), did_you_mean(call.tool, names), fmt::join(names, ", ")));
    }
    if (ready.tool->begin != nullptr && !row_.caller.empty()) return give("failed", "an agent that another one began cannot begin any");
    simdjson::dom::element input;
    if (!call.malformed.empty() || ready.parser->parse(call.input).get(input) || input.get(ready.input)) {
        return give("failed", "the input is no JSON object");
    }
    const bool is_result = call.tool == structured_output_name && !progress_.turn().schema.empty();
    if (auto good = check_json(is_result ? progress_.turn().schema : ready.tool->schema, input); !good) return give("failed", "the input is wrong: " + good.error().message);

    const Folders& folders = parts_.options.folders;
    ready.context.session = session_.id();
    ready.context.folder = row_.folder;
    ready.context.environment = parts_.environment();
    ready.context.mode = parse_mode(row_.mode).value_or(Mode::read_only);
    ready.context.stop = parts_.stopper.token();
    ready.context.hidden = {folders.config, folders.state, folders.cache, folders.runtime};
    auto use = ready.tool->look(ready.input, ready.context);
    if (!use) return give(use.error().kind == Kind::refused ? "denied" : "failed", use.error().text());
    ready.use = std::move(*use);

    auto grants = parts_.options.store.read([&](store::Connection& db) { return store::all_grants(db, row_.folder); });
    if (!grants) return Failure(grants.error());
    grants->insert(grants->end(), progress_.rules().begin(), progress_.rules().end());
    auto settings = read_settings(row_.folder, folders.config, parts_.options.store);
    if (!settings) return Failure(settings.error());
    grants->insert(grants->end(), settings->rules.begin(), settings->rules.end());
    if (settings->is_broken) {
        ready.use.asks_always = true;  // what they forbid is not known
        ready.use.detail += fmt::format("{}(asked because settings cannot be read: {})", ready.use.detail.empty() ? "" : "\n", settings->problems.front());
    }
    const Judgement judgement = judge(call.tool, ready.use, ready.context.mode, *grants);
    if (judgement.verdict == Verdict::deny) return give("denied", fmt::format("Not run: {}.", judgement.why));
    if (call.decided == "no") {
        return give("denied", call.message.empty() ? "The user did not allow this call." : "The user did not allow this call, and says: " + call.message);
    }
    ready.is_asked = judgement.verdict == Verdict::ask && call.decided.empty();
    ready.context.may_leave_folder = ready.use.leaves_folder;
    return std::optional(std::move(ready));
}

Result<void> Turn::ask_people(const CallState& call, const ToolUse& use) {
    const std::vector<std::string> rules = rules_for(call.tool, use);
    JsonWriter body;
    body.begin_object().member("turn", progress_.turn().number).member("call", call.call).member("tool", call.tool);
    body.member("title", use.title).member("detail", use.detail).member("folder", row_.folder).key("rules").begin_array();
    for (const std::string& rule : rules) body.value(rule);
    body.end_array().key("choices").begin_array().value("once");
    if (!rules.empty()) body.value("session").value("always");
    body.value("no").end_array().end_object();
    std::lock_guard lock(parts_.order);
    if (auto read = catch_up(); !read) return read;
    if (progress_.turn().is_interrupted) return {};
    auto asked = append("question", body.text(), {}, {.state = store::SessionState::asking});
    if (!asked) return Failure(asked.error());
    // Who watches the caller hears of it, too.
    return tell_caller("agent_question", fmt::format(R"({{"session":"{}","question":{},{})", session_.id(), *asked, body.text().substr(1)));
}

Result<Turn::Next> Turn::do_calls() {
    const std::vector<CallState> calls = progress_.turn().calls;
    std::vector<Ready> batch;
    size_t children = 0;  // that have no result yet
    for (const CallState& call : calls) {
        if (call.has_result) continue;
        if (!call.session.empty()) {
            auto taken = take_child(call);
            if (!taken) return Failure(taken.error());
            if (!*taken) ++children;
            continue;
        }
        if (call.is_started) {
            if (auto given = give_result(call, "interrupted", failed(std::string(lost_call)), 0); !given) return Failure(given.error());
            continue;
        }
        if (progress_.turn().calls_done + static_cast<int>(batch.size()) >= parts_.options.limits.calls) {
            auto given = give_result(call, "skipped", failed("It was not run: the turn met its limit of tool calls."), 0);
            if (!given) return Failure(given.error());
            continue;
        }
        auto ready = prepare(call);
        if (!ready) return Failure(ready.error());
        if (!*ready) continue;
        if ((*ready)->tool->begin != nullptr && !(*ready)->is_asked) {
            if (children == children_at_once_max) continue;  // begun when another one has ended
            auto begun = begin_child(**ready);
            if (!begun) return Failure(begun.error());
            if (*begun) ++children;
            continue;
        }
        const bool goes_alone = (*ready)->is_asked || !(*ready)->use.only_reads;
        if (goes_alone && !batch.empty()) break;  // what was before it comes first
        if ((*ready)->is_asked) {
            if (call.question != 0) return Next::over;
            if (auto asked = ask_people(call, (*ready)->use); !asked) return Failure(asked.error());
            return Next::more;
        }
        batch.push_back(std::move(**ready));
        if (goes_alone || batch.size() == calls_side_by_side_max) break;
    }
    if (batch.empty() && children > 0) return Next::over;  // the end of one goes on here
    if (auto run = run_side_by_side(batch); !run) return Failure(run.error());
    return Next::more;
}

Result<void> Turn::run_side_by_side(std::vector<Ready>& batch) {
    std::vector<Result<void>> results(batch.size());
    std::vector<std::thread> others;
    for (size_t i = 1; i < batch.size(); ++i) {
        try {
            others.emplace_back([this, &batch, &results, i] { results[i] = run_one(batch[i]); });
        } catch (const std::system_error&) {  // no more threads: one after the other, then
            results[i] = run_one(batch[i]);
        }
    }
    if (!batch.empty()) results[0] = run_one(batch[0]);
    for (std::thread& other : others) other.join();
    for (const Result<void>& result : results) {
        if (!result) return result;
    }
    return {};
}

Result<void> Turn::run_one(Ready& ready) {
    if (ready.context.stop.stop_requested()) return {};
    JsonWriter body;
    body.begin_object().member("turn", progress_.turn().number).member("call", ready.call.call).end_object();
    if (auto started = append("tool_started", body.text()); !started) return Failure(started.error());
    const std::string place = fmt::format(R"("turn":{},"call":)", progress_.turn().number);
    std::string name;
    append_json_string(name, ready.call.call);
    ready.context.output = [&](std::string_view piece) { session_.tell_delta(place + name, "output", piece); };

    const auto began = Clock::now();
    Result<ToolResult> result;
    try {
        result = ready.tool->run(ready.input, ready.context);
    } catch (const std::exception& thrown) {
        result = Failure(Error{Kind::internal, "the tool broke", thrown.what()});
    }
    const int64_t ms = std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - began).count();
    if (!result) result = failed(result.error().text());
    // The next daemon says that it was interrupted, and goes on.
    if (result->is_cut_short && parts_.is_stopping) return {};
    const std::string_view outcome = result->is_cut_short ? "interrupted" : result->failed ? "failed" : "done";
    return give_result(ready.call, outcome, *result, ms);
}

}  // namespace torpor::agent
