// The daemon's parts, in the order they are made; handlers reach them through Call.
#pragma once

#include "base/event_loop.hh"
#include "base/folders.hh"
#include "base/http/server.hh"
#include "daemon/access.hh"
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

namespace agent {
class Sessions;
class Turns;
}
namespace api {
class EventStreams;
}
namespace llm {
class AllProviders;
}

struct Daemon {
    Folders folders;
    EventLoop& loop;
    store::Store& store;
    store::Keys& keys;
    gpu::Pool& pool;
    gateway::Gateway& gateway;
    agent::Sessions* sessions = nullptr;
    agent::Turns* turns = nullptr;
    llm::AllProviders* providers = nullptr;
    api::EventStreams* streams = nullptr;
    http::Server* server = nullptr;
    int64_t started_at_ms = 0;
    http::Limits http_limits;  // constant
    std::string tcp_state;      // "127.0.0.1:7117", or why there is none; constant once serving
    bool tcp_is_well = true;    // it is open, or is not wanted; constant once serving
    HostNames hosts;            // constant once serving

    FailedKeys failed_keys;  // at the TCP door

    std::mutex config_mutex;
    Config config;            // guarded by config_mutex; the last good one
    std::string config_error; // guarded by config_mutex; of the start or the last reload, empty when it was good
    std::shared_ptr<const http::Certificate> certificate;  // guarded by config_mutex; null: the TCP port speaks no TLS

    std::atomic<bool> is_stopping{false};
    std::function<void()> begin_stop;  // any thread

    // Models in no file, which the pool has beside those of `config`: what a deploy tries out.
    std::vector<gpu::Model> trials = {};  // guarded by config_mutex
    std::atomic<bool> is_deploying{false};

    // Gives the pool the models of `config` and `trials`. Any thread but the loop's.
    Result<void> give_models();

    // Reads the configuration and the certificate again and takes them if both are good. Any thread but the loop's.
    Result<size_t> reload();

    // What to do where fewer descriptors may be open than [limits] connections may need; empty if all fit.
    std::string lack_of_open_files() const;
};

}  // namespace torpor
