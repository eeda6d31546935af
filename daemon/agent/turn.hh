// The turns of one session, one after the other, until no prompt waits: provider, permission, tool, result, and again.
//
// All that it knows it has from the log: it reads what is new, does the next thing that follows from it, and so goes on after
// whatever ended it before. What two threads may do at once to a session (a prompt that comes as its turn ends) is kept apart by
// TurnParts::order.
#pragma once

#include "daemon/agent/context.hh"
#include "daemon/agent/permissions.hh"
#include "daemon/agent/progress.hh"
#include "daemon/agent/sessions.hh"
#include "daemon/agent/tool.hh"
#include "daemon/agent/turn_threads.hh"
#include "daemon/agent/turns.hh"

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <string>

namespace torpor::agent {

struct TurnParts {
    const Turns::Options& options;
    std::shared_ptr<Session> session;
    std::mutex& order;                       // held while something is appended that depends on what the log says
    Stopper& stopper;
    const std::atomic<bool>& is_stopping;    // the daemon ends: say nothing more, the next one goes on
    std::function<Environment()> environment;
    std::function<void(const std::string& session)> wake;  // there is something to do in that one
};

class Turn {
  public:
    explicit Turn(TurnParts parts) : parts_(std::move(parts)), session_(*parts_.session) {}

    // Until no prompt waits, a question does, or the daemon ends. An error is one of the store's: the log stays as it is.
    Result<void> run();

  private:
    enum class Next { more, over };
    struct Ready;      // a call that may run (turn_ready.hh)
    class Telling;     // the provider's listener

    // turn.cc
    Result<void> catch_up();
    Result<Next> step();
    Result<void> begin();
    Result<void> end(std::string_view outcome, const std::string& reason, std::string_view limit, bool can_retry);
    Result<void> end_interrupted();
    Result<void> remind_of_result();
    std::string limit_met(std::string& reason) const;
    Result<std::string> system_prompt();
    Result<int64_t> append(std::string_view kind, const std::string& body, std::string_view text = {},
                           const store::SessionChange& change = {}, const Session::Check& check = {});

    // turn_answer.cc
    Result<void> ask();
    Result<llm::Request> request_for(const llm::Chosen& chosen);
    Result<bool> fits(const llm::Chosen& chosen, const llm::Request& request, std::string& reason);
    Result<void> take_answer(const llm::Chosen& chosen, const llm::Answer& answer, const Telling& told, int64_t ms);

    // turn_calls.cc
    Result<Next> do_calls();
    Result<std::optional<Ready>> prepare(const CallState& call);
    Result<void> ask_people(const CallState& call, const ToolUse& use);
    Result<void> run_side_by_side(std::vector<Ready>& batch);
    Result<void> run_one(Ready& ready);

    // turn_children.cc
    Result<bool> begin_child(Ready& ready);         // false: it could not be, and has its result
    Result<bool> take_child(const CallState& call); // false: it is not over
    Result<void> tell_caller(std::string_view kind, const std::string& body);

    Result<void> give_result(const CallState& call, std::string_view outcome, const ToolResult& result, int64_t ms);

    const TurnParts parts_;
    Session& session_;
    store::Session row_;      // as of the last catch_up()
    Progress progress_;
    Context context_;
};

}  // namespace torpor::agent
