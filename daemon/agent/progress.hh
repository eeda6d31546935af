// How far a session came, from its events alone: which prompts wait, what the turn under way has done, what it does next.
#pragma once

#include "daemon/llm/provider.hh"
#include "store/sessions.hh"

#include <simdjson.h>

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace torpor::agent {

// Who says what nobody else said, in an event's `by`.
inline constexpr std::string_view daemon_name = "torpord";

struct CallState {
    std::string call, tool, input;         // input: a JSON object
    std::string malformed = {};            // what the model gave instead of one
    bool is_started = false, has_result = false;
    std::string session = {};              // that it began, and whose result is its own
    int64_t question = 0;                  // its number; 0: not asked
    std::vector<std::string> rules = {};   // of the question
    std::string decided = {};              // once, session, always, no; empty: not yet
    std::string message = {};              // of who decided, for the model
};

struct TurnState {
    int64_t number = 0;                    // its prompt's
    bool is_under_way = false;
    bool is_interrupted = false;           // somebody asked for its end
    bool can_retry = false;                // once it has ended
    std::string schema = {};               // that its result must fit; empty: words will do
    std::string output = {};               // that result, a JSON object
    int reminders = 0;                     // of the result that is still to come
    int resumes = 0;                       // since it got further
    int64_t last_answer = 0;               // the highest number of an answer, lost ones among them
    std::vector<CallState> calls = {};     // of the last whole answer
    std::string stop = {};                 // of that
    int64_t input_seq = 0, told = 0;       // the last event for the model, and the last it had been told before it answered
    // Since it began, or was tried again:
    int answers = 0, calls_done = 0;
    llm::Usage usage = {};
    double cost = 0;
    bool is_cost_known = true;
    int64_t active_ms = 0;                 // of models and tools

    bool needs_answer() const { return input_seq > told; }
    uint64_t tokens() const { return usage.input_tokens + usage.output_tokens; }
};

class EventBody;

class Progress {
  public:
    // All events of the session, in order.
    void add(const store::Event& event);

    int64_t last_seq() const { return last_seq_; }
    const std::deque<int64_t>& waiting() const { return waiting_; }
    const TurnState& turn() const { return turn_; }             // the last one
    const std::vector<store::Grant>& rules() const { return rules_; }  // given for this session only
    const std::string& system_hash() const { return system_; }      // hash of the system prompt; empty before the first turn

  private:
    void add_answered(const store::Event& event);
    void add_call(const store::Event& event);
    void add_child(const EventBody& body);
    void add_usage(const simdjson::dom::object& object);
    CallState* find(const std::string& call);

    int64_t last_seq_ = 0;
    std::deque<int64_t> waiting_;
    std::map<int64_t, std::string> schemas_;   // of prompts that wait
    int64_t interrupt_for_ = 0;            // a prompt that had not begun
    TurnState turn_;
    int64_t answering_ = 0;
    std::vector<CallState> answering_calls_;
    std::vector<store::Grant> rules_;
    std::string system_;
};

}  // namespace torpor::agent
