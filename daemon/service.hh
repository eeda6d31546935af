// The daemon as a running service: its sockets, its signals, reload and shutdown.
#pragma once

#include "base/event_loop.hh"
#include "daemon/daemon.hh"

#include <uv.h>

#include <array>
#include <memory>

namespace torpor {

// Loop thread, but for what Daemon's hooks post.
class Service {
  public:
    Service(Daemon& daemon, http::Server& server);
    ~Service();
    Service(const Service&) = delete;
    Service& operator=(const Service&) = delete;

    // Opens the sockets, writes torpor.pid, watches signals. A taken TCP port is said, not an error.
    Result<void> open();
    // Removes the socket and torpor.pid.
    void close();

  private:
    Result<void> open_tcp();
    void watch_signals();
    void on_signal(int number);
    void begin_stop();
    void finish_stop();
    void watch_socket_file();
    void look_after_socket();
    Result<void> bind_socket_again();
    void plan_watchdog();

    Daemon& daemon_;
    http::Server& server_;
    bool socket_is_ours_ = true;  // not the service manager's
    std::array<uv_signal_t, 3> signals_{};
    Fd inotify_;
    std::unique_ptr<Watch> socket_watch_;
    std::unique_ptr<Timer> socket_retry_;
    bool socket_loss_was_told_ = false;
    std::unique_ptr<Timer> watchdog_;
    std::thread stopper_;
    int stop_requests_ = 0;
};

}  // namespace torpor
