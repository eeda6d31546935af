// The server's connections, and the epoll set that all of them, its listeners and its timer wait in.
//
// Each is armed for one event at a time, so that a connection whose event was taken is its taker's alone until it
// goes back with wait_again(), or away with forget(). Any thread.
#pragma once

#include "base/error.hh"
#include "base/fd.hh"
#include "base/http/server.hh"
#include "base/http/stream.hh"
#include "base/limits.hh"

#include <sys/epoll.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

namespace torpor::http {

struct Peer {
    Peer(Transport transport, Door which, const Limits& limits) : stream(std::move(transport), limits), door(which) {}
    SocketStream stream;
    Door door;
    bool waiting = false;    // in the epoll set, nobody's; guarded by the table's mutex
    bool armed = false;      // known to the epoll set
    bool is_fresh = true;    // its time for the next step begins with its next wait
    bool in_head = false;    // part of a head has come
    bool lingers = false;    // refused: only read on until the peer closes
    bool detached = false;   // somebody else answers; guarded by the table's mutex
    std::chrono::steady_clock::time_point deadline;  // of the wait; guarded by the table's mutex
};

class Connections {
  public:
    // Ids of what is no connection. Listeners are from first_listener_id up to first_connection_id.
    static constexpr uint64_t stop_id = 0;
    static constexpr uint64_t sweep_id = 1;
    static constexpr uint64_t first_listener_id = 2;
    static constexpr uint64_t first_connection_id = 1'000;

    // `limits` must outlive it.
    explicit Connections(const Limits& limits);
    Connections(const Connections&) = delete;
    Connections& operator=(const Connections&) = delete;

    // Whether the system gave what is needed; errno tells otherwise.
    bool is_usable() const { return epoll_ && stop_event_ && sweep_timer_; }
    // See Server.
    Result<void> add_listener(Fd listening, Door door, std::shared_ptr<const Certificate> certificate);
    void set_certificate(std::shared_ptr<const Certificate> certificate);

    // The next event: 1 with its id, 0 after timeout_ms (-1: never), -1 when interrupted.
    int wait(uint64_t& id, int timeout_ms);

    // Whose event it was: a listener's, the timer's.
    void accept_from(uint64_t id);
    void sweep();
    // A connection's: it is the caller's now. Null if it has gone meanwhile.
    Peer* take(uint64_t id);

    // The caller's connection goes back into the set, armed for its next event; not to be touched afterwards.
    void wait_again(uint64_t id, Peer& peer);
    // The caller's connection is closed.
    void forget(uint64_t id);
    // The caller's connection is closed when linger_time is over, however often it goes back into the set.
    void linger(Peer& peer);
    // Between these two it is somebody's who answers without a thread of the server.
    void detach(Peer& peer);
    void take_back(uint64_t id);

    bool is_stopping() const { return stopping_; }
    // Closes the listeners and what waits, and wakes all who wait. False if that was done before.
    bool stop();
    // Whether no connection is detached; waits for it until `deadline`, or for as long as it takes.
    bool await_detached(std::chrono::steady_clock::time_point deadline);
    void await_detached();
    // Shuts down what is still there; whoever has it will notice.
    void shut_down_all();

    size_t count() const;

  private:
    struct Listener {
        Fd socket;
        Door door;
        std::shared_ptr<const Certificate> certificate;  // null: plain
    };

    bool arm(int fd, uint64_t id, uint32_t events, int operation);
    void set_sweep(bool on);

    const Limits& limits_;
    Fd epoll_, stop_event_, sweep_timer_;
    std::atomic<bool> stopping_{false};

    mutable std::mutex mutex_;
    std::condition_variable changed_;
    std::vector<Listener> listeners_;                                  // guarded by mutex_
    std::unordered_map<uint64_t, std::unique_ptr<Peer>> connections_;  // the map: guarded by mutex_
    uint64_t next_id_ = first_connection_id;                           // guarded by mutex_
    bool sweeping_ = false;                                            // guarded by mutex_
    bool starved_ = false;                                             // no descriptor for a connection; guarded by mutex_
    size_t detached_ = 0;                                              // guarded by mutex_
};

}  // namespace torpor::http
