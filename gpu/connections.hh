// Keep-alive connections to one worker. They belong to one incarnation of its process.
#pragma once

#include "base/fd.hh"
#include "gpu/engine.hh"

#include <mutex>
#include <vector>

namespace torpor::gpu {

// Any thread.
class Connections {
  public:
    explicit Connections(Endpoint endpoint) : endpoint_(std::move(endpoint)) {}

    // A connection kept from before if there is one (`reused` tells: it may have died meanwhile), else a
    // new one. Non-blocking.
    Result<Fd> take(bool& reused);
    // Keeps a connection whose last answer was read to its end.
    void give_back(Fd connection);
    // Closes those that are kept, and every one that is given back later.
    void close_all();

    const Endpoint& endpoint() const { return endpoint_; }

  private:
    const Endpoint endpoint_;
    std::mutex mutex_;
    std::vector<Fd> kept_;  // guarded by mutex_
    bool closed_ = false;   // guarded by mutex_
};

}  // namespace torpor::gpu
