// config.toml and models/: what people write by hand.
#pragma once

#include "base/error.hh"
#include "base/folders.hh"
#include "base/limits.hh"
#include "base/log.hh"
#include "daemon/gateway/limits.hh"
#include "daemon/llm/provider_config.hh"
#include "daemon/tcp_address.hh"
#include "gpu/engine.hh"
#include "gpu/limits.hh"
#include "gpu/model_file.hh"

#include <optional>
#include <string>
#include <vector>

namespace torpor {

// [http]. Taken at the start, but for what the two files hold.
struct HttpConfig {
    std::optional<TcpAddress> tcp = TcpAddress{"127.0.0.1", 7117};  // beyond loopback only with what follows
    std::string certificate, key;      // PEM files; both or neither, which is plain HTTP
    std::vector<std::string> hosts;    // lower case, numbers as number_of() has them
    bool allow_plain_http = false;     // beyond loopback, too

    bool operator==(const HttpConfig&) const = default;
};

struct Config {
    HttpConfig http;
    http::Limits http_limits;
    gateway::Limits gateway_limits;
    size_t requests_per_model = gpu::requests_per_model_default;
    size_t queue = gpu::queue_max_default;
    std::optional<uint64_t> memory;       // [pool]; nothing: "auto"
    std::optional<uint64_t> disk_budget;  // of all snapshots; nothing: what leaves enough of the disk free
    uint64_t prompt_state_bytes = gpu::prompt_disk_default;  // on disk, over all models; 0: none is kept
    log::Level log_level = log::Level::info;
    gpu::EnginePrograms programs;
    std::string agent_model;              // of sessions that name none; empty: the pool's only one
    std::vector<llm::ProviderConfig> providers;
    std::vector<gpu::Model> models;
    std::vector<std::string> notes;     // for the log: keys without effect
    std::vector<std::string> mistakes;  // of model files, each with file and line; such a model is not in `models`
};

// Reads both. An error of config.toml names file and line. A model's file stands by itself: what is wrong with one is in
// `mistakes`, and whoever calls decides what becomes of the others.
Result<Config> load_config(const Folders& folders);

// config.toml alone; `file` is for messages.
Result<Config> parse_config(std::string_view text, const std::string& file);

// Every key of config.toml as "table.key"; packaging/config.example.toml must show them all.
std::vector<std::string> config_keys();

// No two models may share a name, an alias or the name of an adapter.
Result<void> check_names(const std::vector<gpu::Model>& models);

}  // namespace torpor
