// Where everything of one daemon lies. TORPOR_DIR puts it all under one folder; otherwise XDG's folders.
#pragma once

#include "base/error.hh"

#include <filesystem>
#include <string>

namespace torpor {

struct Folders {
    std::filesystem::path config;   // config.toml, models/
    std::filesystem::path state;    // torpor.db, logs/, torpor.lock
    std::filesystem::path cache;    // snapshots/, prompts/
    std::filesystem::path runtime;  // torpor.sock, torpor.pid, workers/
    std::filesystem::path data;     // what the set-up fetched: engines/, criu/, models/

    std::filesystem::path socket() const { return runtime / "torpor.sock"; }
    std::filesystem::path config_file() const { return config / "config.toml"; }
    std::filesystem::path models() const { return config / "models"; }
    std::filesystem::path logs() const { return state / "logs"; }
    std::filesystem::path request_log() const { return logs() / "requests.jsonl"; }  // no model's log has this name
    std::filesystem::path snapshots() const { return cache / "snapshots"; }
    std::filesystem::path prompts() const { return cache / "prompts"; }
    std::filesystem::path workers() const { return runtime / "workers"; }

    // From the environment; makes nothing. Fails when HOME is needed and unset, or when the socket's
    // path is too long for a Unix socket (107 bytes).
    static Result<Folders> from_environment();
};

}  // namespace torpor
