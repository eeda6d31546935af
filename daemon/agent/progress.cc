#include "daemon/agent/progress.hh"

#include "daemon/agent/event_body.hh"
#include "daemon/agent/tool.hh"

#include <algorithm>
#include <utility>

namespace torpor::agent {

CallState* Progress::find(const std::string& call) {
    const auto found = std::ranges::find(turn_.calls, call, &CallState::call);
    return found == turn_.calls.end() ? nullptr : &*found;
}

void Progress::add_call(const store::Event& event) {
    const EventBody body(event.body);
    if (event.kind == "tool_call") {
        answering_calls_.push_back({body.text("call"), body.text("tool"), body.json("input"), body.text("malformed")});
        return;
    }
    CallState* const call = find(body.text("call"));
    if (call == nullptr) return;
    if (event.kind == "question") {
        call->question = event.seq;
        call->rules = body.texts("rules");
    } else if (event.kind == "tool_started") {
        call->is_started = true;
        call->session = body.text("session");
    } else if (event.kind == "tool_result") {
        call->has_result = true;
        turn_.input_seq = event.seq;
        turn_.active_ms += body.number("ms");
        turn_.resumes = 0;
        const std::string outcome = body.text("outcome");
        if (outcome != "skipped") ++turn_.calls_done;
        if (outcome == "done" && call->tool == structured_output_name) turn_.output = call->input;
        if (!call->session.empty()) add_child(body);
    }
}

// What a session took that a call of this turn began, as the call's result says.
void Progress::add_child(const EventBody& body) {
    simdjson::dom::object detail;
    if (!body.get("detail", detail)) return;
    add_usage(detail);
}

// From an object with `usage` and `cost`; without the latter it is not known.
void Progress::add_usage(const simdjson::dom::object& object) {
    simdjson::dom::object usage;
    if (!object["usage"].get(usage)) {
        const auto count = [&](std::string_view key) {
            uint64_t number = 0;
            return usage[key].get(number) ? 0 : number;
        };
        turn_.usage.input_tokens += count("input");
        turn_.usage.output_tokens += count("output");
        turn_.usage.cache_read_tokens += count("cache_read");
        turn_.usage.cache_write_tokens += count("cache_write");
    }
    double cost = 0;
    if (object["cost"].get(cost)) turn_.is_cost_known = false;
    turn_.cost += cost;
}

void Progress::add_answered(const store::Event& event) {
    const EventBody body(event.body);
    const bool is_whole = body.number("answer") == answering_;
    turn_.calls = is_whole ? std::exchange(answering_calls_, {}) : std::vector<CallState>();
    turn_.stop = body.text("stop");
    turn_.last_answer = std::max(turn_.last_answer, body.number("answer"));
    turn_.told = body.has("told") ? body.number("told") : event.seq;
    turn_.resumes = 0;
    ++turn_.answers;
    turn_.active_ms += body.number("ms");
    add_usage(body.object());
}

void Progress::add(const store::Event& event) {
    last_seq_ = event.seq;
    const EventBody body(event.body);
    if (event.kind == "prompt") {
        waiting_.push_back(event.seq);
        if (std::string schema = body.json("schema"); !schema.empty()) schemas_[event.seq] = std::move(schema);
    } else if (event.kind == "prompt_withdrawn") {
        std::erase(waiting_, body.number("prompt"));
        schemas_.erase(body.number("prompt"));
    } else if (event.kind == "turn_started") {
        turn_ = {};
        answering_ = 0;
        answering_calls_.clear();
        turn_.number = body.number("turn");
        turn_.is_under_way = true;
        turn_.is_interrupted = interrupt_for_ == turn_.number;
        turn_.input_seq = event.seq;
        std::erase(waiting_, body.number("prompt"));
        if (auto schema = schemas_.extract(body.number("prompt"))) turn_.schema = std::move(schema.mapped());
        if (system_.empty()) system_ = body.text("system");
    } else if (event.kind == "turn_retried") {
        turn_.is_under_way = true;
        turn_.is_interrupted = turn_.can_retry = false;
        turn_.input_seq = event.seq;
        turn_.resumes = turn_.reminders = turn_.answers = turn_.calls_done = 0;
        turn_.usage = {};
        turn_.cost = 0;
        turn_.is_cost_known = true;
        turn_.active_ms = 0;
    } else if (event.kind == "turn_resumed") {
        turn_.resumes = static_cast<int>(body.number("times"));
    } else if (event.kind == "turn_interrupted") {
        if (turn_.is_under_way) turn_.is_interrupted = true;
        if (!turn_.is_under_way) interrupt_for_ = body.number("turn");
    } else if (event.kind == "turn_ended") {
        turn_.is_under_way = turn_.is_interrupted = false;
        turn_.can_retry = body.truth("can_retry");
        turn_.calls.clear();
    } else if (event.kind == "steered") {
        turn_.input_seq = event.seq;
        if (body.text("by") == daemon_name) ++turn_.reminders;
    } else if (event.kind == "answered") {
        add_answered(event);
    } else if (event.kind == "decided") {
        const auto asked = std::ranges::find(turn_.calls, body.number("question"), &CallState::question);
        if (asked == turn_.calls.end()) return;
        asked->decided = body.text("answer");
        asked->message = body.text("message");
        turn_.resumes = 0;
        if (asked->decided != "session") return;
        for (const std::string& rule : asked->rules) {
            rules_.push_back({.id = 0, .folder = {}, .rule = rule, .decision = "allow", .by = body.text("by"), .created_at_ms = event.at_ms});
        }
    } else if (event.kind == "copied") {
        rules_.clear();  // nobody gave them to this session
    } else if (event.kind == "text" || event.kind == "reasoning" || event.kind == "tool_call") {
        turn_.last_answer = std::max(turn_.last_answer, body.number("answer"));
        if (body.number("answer") != answering_) answering_calls_.clear();
        answering_ = body.number("answer");
        if (event.kind == "tool_call") add_call(event);
    } else {
        add_call(event);
    }
}

}  // namespace torpor::agent
