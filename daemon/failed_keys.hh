// What wrong keys come to: their sender is told to wait, longer each time, and the log hears of it now and then.
//
// Only who sends a wrong key is slowed down. Keys are looked up first, and a right one never comes here, since behind
// one address (on loopback mostly 127.0.0.1) there may be many clients. For the same reason a right key
// does not wipe out the count. No thread waits: a sender who asks again too early gets 429 with Retry-After.
#pragma once

#include "base/error.hh"

#include <chrono>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <string_view>

namespace torpor {

// Any thread.
class FailedKeys {
  public:
    using Clock = std::chrono::steady_clock;

    // The answer to a wrong key from this address: `unauthorized`, or `busy` with the seconds to wait where it
    // comes before an earlier wait is over. `route` is for the log: a pattern of ours, never what a stranger wrote.
    Error refuse(const std::string& address, std::string_view route, Clock::time_point now = Clock::now());

    // All wrong keys so far.
    uint64_t total() const;
    // Addresses that are remembered.
    size_t addresses() const;

  private:
    struct Sender {
        uint64_t count = 0;
        Clock::time_point last{}, wait_until{};
    };

    void make_room(Clock::time_point now);  // mutex_ held
    bool may_log(Clock::time_point now);    // mutex_ held

    mutable std::mutex mutex_;
    std::map<std::string, Sender, std::less<>> senders_;  // guarded by mutex_, by address
    uint64_t total_ = 0;                                  // guarded by mutex_
    Clock::time_point minute_{};                          // guarded by mutex_; when the log's present minute began
    int lines_ = 0;                                       // guarded by mutex_; in it
};

}  // namespace torpor
