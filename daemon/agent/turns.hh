// Turns: what prompts set off. One thread a running turn, blocking code, a stop token; at most turns_max at once, the others
// wait. A turn lives in the daemon, whoever watches; while it waits for an answer to a question it has no thread.
//
// Everything that a turn does is an event first (docs/events.md), so that a daemon that was killed goes on where the log ends:
// at the start resume_all() looks for sessions that are not idle. A tool call that was started and has no result gets one,
// `interrupted`; a call that was not started is asked about and run; an answer that was cut short is asked for again; a question
// that has no answer waits for one as before. A turn that was resumed turn_resumes_max times without getting further is ended.
#pragma once

#include "base/error.hh"
#include "base/folders.hh"
#include "daemon/agent/environment.hh"
#include "daemon/agent/limits.hh"
#include "daemon/agent/sessions.hh"
#include "daemon/llm/provider.hh"

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace torpor::agent {

// What ends a turn with the outcome `limit`.
struct TurnLimits {
    int answers = turn_answers_max;
    int calls = turn_calls_max;
    uint64_t tokens = turn_tokens_max;
    double cost = turn_cost_max;
    std::chrono::milliseconds time = turn_time_max;
};

class Turns {
  public:
    struct Options {
        store::Store& store;
        Sessions& sessions;
        llm::Providers& providers;
        Folders folders;               // the user's memory files lie in `config`; no tool may touch any of them
        TurnLimits limits = {};
    };
    explicit Turns(Options options);
    ~Turns();

    // All below: any thread but the loop's; they block on the disk. Errors are for the caller: not_found, invalid, conflict.

    // Stores the prompt; its turn begins once those before it are over. Returns the event's number.
    struct Image {
        std::string media_type;
        std::string bytes;
    };
    struct Prompt {
        std::string text;
        std::vector<Image> images = {};
        std::string schema = {};  // JSON Schema of an object that the turn must give as its result; empty: words will do
    };
    Result<int64_t> prompt(const std::string& session, Prompt prompt, const std::string& by);
    // `conflict` if it has begun.
    Result<void> withdraw(const std::string& session, int64_t prompt, const std::string& by);
    // For the turn under way; `conflict` if there is none.
    Result<int64_t> steer(const std::string& session, std::string text, const std::string& by);
    // `conflict`, naming who was first, if it has an answer. `always` keeps a grant for the session's folder.
    Result<int64_t> decide(const std::string& session, int64_t question, std::string_view answer, std::string message, const std::string& by);
    // Ends the turn under way: the model's stream, the tool. True if there was one.
    Result<bool> interrupt(const std::string& session, const std::string& by);
    // Removes the session for good, with all its events. A turn under way is ended first; `conflict` if it does not end within
    // turn_end_wait_max.
    Result<void> remove(const std::string& session, const std::string& by);
    // The last turn again, if it failed, was interrupted or met a limit: its answers that are whole stay.
    Result<int64_t> retry(const std::string& session, const std::string& by);
    // The client's environment, for the session's tools; kept in memory only. What is not on the allow-list is dropped.
    void set_environment(const std::string& session, const Environment& environment);

    // After the start of the daemon.
    void resume_all();
    // Ends all turns without marking them as ended, so that the next daemon goes on with them. Waits for them.
    void stop();

    size_t running_count() const;

  private:
    class Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace torpor::agent
