// The thread that carries answers: it waits for all workers and all clients at once, so that a stream costs a
// few kilobytes and no thread, and a slow client delays nobody.
#pragma once

#include "base/error.hh"
#include "base/fd.hh"
#include "daemon/gateway/limits.hh"

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <unordered_map>
#include <vector>

namespace torpor::gateway {

class Exchange;

class Relay {
  public:
    // `on_tick` is called on the relay's thread a few times a second while there is something to do.
    explicit Relay(std::function<void(bool is_idle)> on_tick);
    ~Relay();
    Relay(const Relay&) = delete;
    Relay& operator=(const Relay&) = delete;

    Result<void> start();
    // Ends the thread; what is still under way is dropped. Any thread but the relay's.
    void stop();

    // Any thread. From here on only the relay's thread touches the exchange.
    void adopt(std::shared_ptr<Exchange> exchange);
    // Any thread: `work` runs on the relay's thread, with the exchange of this number if it is still there.
    void post(uint64_t id, std::function<void(Exchange&)> work);
    uint64_t next_id() { return next_id_.fetch_add(1); }
    size_t count() const;

    // The relay's thread only.
    enum class Side : uint64_t { client, worker };
    // `operation`: EPOLL_CTL_ADD, _MOD or _DEL. Closing a descriptor ends its watch, too.
    void watch(int operation, int fd, uint64_t id, Side side, uint32_t events);
    // Calls Exchange::connect_again soon.
    void again_soon(uint64_t id) { soon_.push_back(id); }
    void remove(uint64_t id);
    std::array<char, piece_bytes>& buffer() { return buffer_; }

  private:
    void run();
    void take_posts();
    void tick();
    void wake_up();
    bool may_sleep();
    std::shared_ptr<Exchange> find(uint64_t id);

    std::function<void(bool)> on_tick_;
    Fd epoll_, wake_;
    std::thread thread_;
    std::atomic<bool> stopping_{false};
    std::atomic<uint64_t> next_id_{1};
    std::array<char, piece_bytes> buffer_{};
    std::vector<uint64_t> soon_;

    struct Post {
        uint64_t id;
        std::function<void(Exchange&)> work;
    };
    mutable std::mutex mutex_;
    std::unordered_map<uint64_t, std::shared_ptr<Exchange>> exchanges_;  // guarded by mutex_
    std::vector<Post> posts_;                                            // guarded by mutex_
    int idle_ticks_ = 0;   // in a row, with nothing to carry; guarded by mutex_
    bool sleeps_ = false;  // the thread waits without a tick; guarded by mutex_
};

}  // namespace torpor::gateway
