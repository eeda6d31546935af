// The threads of turns: one a session that has something to do, a named number at once, the others wait for one.
#pragma once

#include "base/error.hh"

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <stop_token>
#include <string>
#include <thread>

namespace torpor::agent {

// The stop token of what a session does now. Any thread.
class Stopper {
  public:
    std::stop_token token() const {
        std::lock_guard lock(mutex_);
        return source_.get_token();
    }
    void stop() {
        std::lock_guard lock(mutex_);
        source_.request_stop();
    }
    // For the next turn: what stopped the last one does not stop it.
    void renew() {
        std::lock_guard lock(mutex_);
        source_ = {};
    }

  private:
    mutable std::mutex mutex_;
    std::stop_source source_;  // guarded by mutex_
};

class TurnThreads {
  public:
    // Does all that there is to do in a session, on a thread of its own. Never twice at once for one session.
    using Run = std::function<Result<void>(const std::string& session, Stopper& stopper)>;

    TurnThreads(size_t count_max, Run run) : count_max_(count_max), run_(std::move(run)) {}
    ~TurnThreads() { stop(); }
    TurnThreads(const TurnThreads&) = delete;
    TurnThreads& operator=(const TurnThreads&) = delete;

    // There is something to do: Run is called from now on at least once more. Any thread.
    void wake(const std::string& session);
    // Stops what the session does now, if it does anything.
    void stop_turn(const std::string& session);
    // Stops all and waits for them; then nothing wakes any more.
    void stop();
    const std::atomic<bool>& is_stopping() const { return is_stopping_; }
    size_t running_count() const;

  private:
    // A session whose turns run, or wait for a thread.
    struct Running {
        Stopper stopper;
        std::thread thread;
        bool is_wanted_again = false;  // something came while it ran
    };

    void begin_waiting();
    void run(const std::string& session, Running& running);
    void join_ended(std::unique_lock<std::mutex>& lock);

    const size_t count_max_;
    const Run run_;
    std::atomic<bool> is_stopping_{false};

    mutable std::mutex mutex_;
    std::condition_variable ended_;
    std::map<std::string, std::unique_ptr<Running>> running_;  // guarded by mutex_
    std::deque<std::string> waiting_;                          // guarded by mutex_; of those, that have no thread yet
    std::list<std::thread> threads_ended_;                     // guarded by mutex_; to be joined
    size_t count_ = 0;                                         // guarded by mutex_
};

}  // namespace torpor::agent
