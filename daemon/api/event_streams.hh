// Sessions' events on their way to those who follow them (docs/events.md), all by one thread, so that a follower costs a
// connection and a few kilobytes and no thread, and a slow one slows nobody.
//
// What is stored is read from the store until the follower is up to date; from then on it gets what the session tells. Of
// that at most follower_queue_bytes_max wait for it: one that takes less lets go of the queue and begins again with what is
// stored, so it misses pieces of blocks (which it is given anew), never an event. One that takes nothing for
// follower_stall_max is let go.
#pragma once

#include "base/fd.hh"
#include "base/http/server.hh"
#include "daemon/agent/sessions.hh"
#include "store/store.hh"

#include <atomic>
#include <chrono>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>
#include <unordered_map>
#include <vector>

namespace torpor::api {

class EventStreams {
  public:
    // `store` must outlive it.
    explicit EventStreams(store::Store& store);
    ~EventStreams() { stop(); }
    EventStreams(const EventStreams&) = delete;
    EventStreams& operator=(const EventStreams&) = delete;

    // Sends the head, what is stored after `after`, and with `follows` what comes. Any thread.
    void add(std::shared_ptr<agent::Session> session, std::unique_ptr<http::Detached> connection, int64_t after, bool follows);
    // Ends all streams: their clients connect again. Any thread.
    void stop();

    size_t count() const { return count_; }

  private:
    // What sessions put in, on their threads.
    struct Inbox {
        std::mutex mutex;
        std::deque<agent::ToldPtr> told;  // guarded by mutex
        size_t bytes = 0;                 // guarded by mutex
        bool has_lost = false;            // guarded by mutex
    };
    struct Follower {
        uint64_t id = 0;
        std::shared_ptr<agent::Session> session;
        std::unique_ptr<http::Detached> connection;
        bool follows = true;
        std::shared_ptr<Inbox> inbox = std::make_shared<Inbox>();
        std::shared_ptr<agent::Session::Listening> listening = {};
        std::vector<agent::ToldPtr> now = {};  // to be told once it is up to date
        int64_t sent_seq = 0;                  // in `out` or gone
        int64_t stored_seq = 0;                // up to here it reads from the store
        bool is_last = false;                  // nothing comes after `out`
        std::string out = {};
        size_t out_at = 0;
        bool is_polled = false;
        std::chrono::steady_clock::time_point took_at = std::chrono::steady_clock::now();
    };

    void run();
    void listen(Follower& follower);
    // False: it has gone, or is done.
    bool pump(Follower& follower);
    bool flush(Follower& follower);
    bool refill(Follower& follower);
    bool read_stored(Follower& follower);
    void poll(Follower& follower, bool wants_send);
    void beat();
    void mark_ready(uint64_t id);

    store::Store& store_;
    Fd epoll_, wake_;
    std::unordered_map<uint64_t, std::unique_ptr<Follower>> followers_;  // the thread's
    std::atomic<size_t> count_{0};

    std::mutex mutex_;
    std::vector<std::unique_ptr<Follower>> added_;  // guarded by mutex_
    std::vector<uint64_t> ready_;                   // guarded by mutex_; their inboxes have something
    uint64_t next_id_ = 1;                          // guarded by mutex_
    bool is_stopping_ = false;                      // guarded by mutex_
    std::thread thread_;
};

}  // namespace torpor::api
