// One HTTP question to a worker, asked and awaited on the loop.
#pragma once

#include "base/event_loop.hh"
#include "base/fd.hh"
#include "gpu/engine.hh"

#include <functional>
#include <memory>
#include <string>

namespace torpor::gpu {

// The status line's number, or 0 when nobody answered in time (probe_time_max unless said otherwise).
using OnStatus = std::function<void(int status)>;

// Sends GET, or POST if `body` is not empty, and reads until the answer ends (probe_answer_bytes_max). Destroying it
// abandons it without calling back. Loop thread only.
class Probe {
  public:
    Probe(EventLoop& loop, const Endpoint& endpoint, const std::string& path, const std::string& body, OnStatus on_status,
          std::chrono::milliseconds time_max);
    ~Probe();
    Probe(const Probe&) = delete;
    Probe& operator=(const Probe&) = delete;

    // What the answer holds after its head; for OnStatus.
    std::string body() const;

  private:
    void on_ready();
    void finish(int status);

    Fd socket_;
    std::string request_;
    std::string answer_;
    OnStatus on_status_;
    EventLoop* loop_ = nullptr;
    Timer deadline_;
    std::unique_ptr<Watch> watch_;
};

// A connected, non-blocking, close-on-exec socket to the endpoint. TCP connects may still be under way.
// `busy` when a unix socket's backlog is full: try again in a moment.
Result<Fd> connect_to(const Endpoint& endpoint);

// A loopback port that was free a moment ago.
Result<int> free_port();

}  // namespace torpor::gpu
