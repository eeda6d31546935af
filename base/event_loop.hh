// The one event loop: processes, timers, signals and the pool's state machines live on its thread.
//
// Other threads hand work over with post(). What is posted runs in order; whole queues are drained at
// once, since libuv merges wake-ups. After stop() began, post() drops its work and returns false.
#pragma once

#include <uv.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace torpor {

class EventLoop {
  public:
    EventLoop();
    ~EventLoop();
    EventLoop(const EventLoop&) = delete;
    EventLoop& operator=(const EventLoop&) = delete;

    // Runs the loop in the calling thread until stop(). Closes what is still open before it returns.
    void run();

    // From any thread.
    void stop();
    bool post(std::function<void()> work);

    // Runs `work` on a thread of libuv's pool, then `done` on the loop. Loop thread only. For what may
    // wait for a disk; never for what waits for a peer.
    void run_aside(std::function<void()> work, std::function<void()> done);

    // True on the thread that runs the loop, and everywhere before it runs.
    bool is_loop_thread() const;

    uv_loop_t* handle() { return &loop_; }

  private:
    void drain();

    uv_loop_t loop_{};
    uv_async_t wake_{};
    std::atomic<std::thread::id> thread_{};

    std::mutex mutex_;
    std::vector<std::function<void()>> queue_;  // guarded by mutex_
    bool closed_ = false;                       // guarded by mutex_
    bool stopping_ = false;                     // guarded by mutex_
};

// A one-shot timer of the loop. Made, started, cancelled and destroyed on the loop's thread.
class Timer {
  public:
    explicit Timer(EventLoop& loop);
    ~Timer();
    Timer(const Timer&) = delete;
    Timer& operator=(const Timer&) = delete;

    // Replaces what was planned before.
    void start(std::chrono::milliseconds delay, std::function<void()> action);
    void cancel();
    bool is_active() const;

  private:
    struct Handle;
    Handle* handle_;  // owned by libuv until its close callback
};

// Calls `ready` on the loop whenever the descriptor has one of `events` (UV_READABLE, ...), until destroyed.
// Does not own the descriptor; destroy the watch before closing it. Loop thread only.
class Watch {
  public:
    Watch(EventLoop& loop, int fd, int events, std::function<void()> ready);
    ~Watch();
    Watch(const Watch&) = delete;
    Watch& operator=(const Watch&) = delete;

  private:
    struct Handle;
    Handle* handle_;  // owned by libuv until its close callback
};

}  // namespace torpor
