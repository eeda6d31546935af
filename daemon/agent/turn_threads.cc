#include "daemon/agent/turn_threads.hh"

#include "base/log.hh"

#include <system_error>
#include <utility>

namespace torpor::agent {

void TurnThreads::wake(const std::string& session) {
    std::unique_lock lock(mutex_);
    if (is_stopping_) return;
    join_ended(lock);
    auto& running = running_[session];
    if (running) {
        running->is_wanted_again = true;
        return;
    }
    running = std::make_unique<Running>();
    waiting_.push_back(session);
    begin_waiting();
}

// Under mutex_.
void TurnThreads::begin_waiting() {
    while (!waiting_.empty() && count_ < count_max_ && !is_stopping_) {
        const std::string session = std::move(waiting_.front());
        waiting_.pop_front();
        Running& running = *running_[session];
        try {
            running.thread = std::thread([this, session, &running] { run(session, running); });
        } catch (const std::system_error& failed) {
            log::error("no thread for a turn: {}; it waits for the end of another", failed.what());
            waiting_.push_front(session);
            return;
        }
        ++count_;
    }
}

void TurnThreads::run(const std::string& session, Running& running) {
    for (;;) {
        auto done = run_(session, running.stopper);
        if (!done) log::error("the turn of session {} cannot go on: {}; it does with the next prompt or start", session, done.error().text());
        std::unique_lock lock(mutex_);
        if (done && std::exchange(running.is_wanted_again, false) && !is_stopping_) continue;
        threads_ended_.push_back(std::move(running.thread));
        running_.erase(session);
        --count_;
        begin_waiting();
        ended_.notify_all();
        return;
    }
}

void TurnThreads::join_ended(std::unique_lock<std::mutex>& lock) {
    std::list<std::thread> ended = std::exchange(threads_ended_, {});
    lock.unlock();
    for (std::thread& thread : ended) thread.join();
    lock.lock();
}

void TurnThreads::stop_turn(const std::string& session) {
    std::lock_guard lock(mutex_);
    const auto found = running_.find(session);
    if (found != running_.end()) found->second->stopper.stop();
}

void TurnThreads::stop() {
    std::unique_lock lock(mutex_);
    is_stopping_ = true;
    for (const std::string& session : waiting_) running_.erase(session);
    waiting_.clear();
    for (const auto& [session, running] : running_) running->stopper.stop();
    ended_.wait(lock, [this] { return count_ == 0; });
    join_ended(lock);
}

size_t TurnThreads::running_count() const {
    std::lock_guard lock(mutex_);
    return count_;
}

}  // namespace torpor::agent
