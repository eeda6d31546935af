// The daemon's parts, in the order they are made; handlers reach them through Call.
#pragma once

#include "base/event_loop.hh"
#include "base/folders.hh"
#include "base/http/server.hh"
#include "daemon/config.hh"
#include "daemon/failed_keys.hh"
#include "gpu/pool.hh"
#include "store/keys.hh"
#include "store/store.hh"

#include <atomic>
#include <functional>
#include <mutex>

namespace torpor {

namespace gateway {
class Gateway;
}

struct Daemon {
    Folders folders;
    EventLoop& loop;
    store::Store& store;
    store::Keys& keys;
    gpu::Pool& pool;
    gateway::Gateway& gateway;
    http::Server* server = nullptr;
    int64_t started_at_ms = 0;
    http::Limits http_limits;  // constant
    std::string tcp_state;  // "127.0.0.1:7117", or why there is none; constant once serving

    FailedKeys failed_keys;  // at the TCP door

    std::mutex config_mutex;
    Config config;            // guarded by config_mutex; the last good one
    std::string config_error; // guarded by config_mutex; of the start or the last reload, empty when it was good

    std::atomic<bool> is_stopping{false};
    std::function<void()> begin_stop;  // any thread

    // Reads the configuration again and takes it if it is good. Any thread but the loop's.
    Result<size_t> reload();
};

}  // namespace torpor
