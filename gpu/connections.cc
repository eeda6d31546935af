#include "gpu/connections.hh"

#include "gpu/limits.hh"
#include "gpu/probe.hh"

#include <poll.h>

namespace torpor::gpu {

Result<Fd> Connections::take(bool& reused) {
    reused = false;
    for (;;) {
        Fd kept;
        {
            std::lock_guard lock(mutex_);
            if (kept_.empty()) break;
            kept = std::move(kept_.back());
            kept_.pop_back();
        }
        pollfd now{kept.get(), POLLIN | POLLRDHUP, 0};
        if (::poll(&now, 1, 0) == 0) {  // anything to read between answers means that it was closed
            reused = true;
            return kept;
        }
    }
    return connect_to(endpoint_);
}

void Connections::give_back(Fd connection) {
    std::lock_guard lock(mutex_);
    if (!closed_ && kept_.size() < kept_connections_max) kept_.push_back(std::move(connection));
}

void Connections::close_all() {
    std::lock_guard lock(mutex_);
    closed_ = true;
    kept_.clear();
}

}  // namespace torpor::gpu
