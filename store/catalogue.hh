// What the daemon knows of models from earlier runs: snapshots, workers, how often each was started.
//
// Plain functions over a connection, to be called within Store::write, post or read. To remove what is not
// there is no error. The store knows these as rows only; what they mean is the pool's business.
#pragma once

#include "base/error.hh"
#include "store/database.hh"

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace torpor::store {

struct Snapshot {
    std::string model;
    std::string tier;
    std::string path;
    uint64_t bytes = 0;
    std::string fingerprint;
    int64_t created_at_ms = 0;
};

// One a model: a put replaces what was there.
Result<void> put_snapshot(Connection& connection, const Snapshot& snapshot);
Result<std::vector<Snapshot>> all_snapshots(Connection& connection);  // by model
Result<void> remove_snapshot(Connection& connection, std::string_view model);

// A running process, so that the next daemon can find it and prove that it is ours.
struct Worker {
    std::string model;
    int64_t pid = 0;
    uint64_t start_time = 0;  // clock ticks since boot, from /proc/PID/stat
    std::string socket;       // where it listens, or empty:
    int64_t port = 0;         // on this port
    std::string token;        // a secret: never into a log or an answer
    std::string command;      // its command line, as the pool writes it
    int64_t created_at_ms = 0;
};

Result<void> put_worker(Connection& connection, const Worker& worker);
Result<std::vector<Worker>> all_workers(Connection& connection);  // by model
Result<void> remove_worker(Connection& connection, std::string_view model);

struct ModelSeen {
    std::string name;
    int64_t first_seen_at_ms = 0;
    int64_t last_used_at_ms = 0;  // 0: never
    uint64_t cold_starts = 0;
    uint64_t thaws = 0;
    uint64_t memory_bytes = 0;     // what a worker takes at the most; this and what follows is 0 until it is known
    int64_t cold_ms = 0;           // from a start until ready
    int64_t thaw_ms = 0;
};

enum class Start { cold, thawed };

// Both add the model if it is new. A use earlier than the one that is known changes nothing.
Result<void> note_used(Connection& connection, std::string_view name, int64_t at_ms);
Result<void> note_start(Connection& connection, std::string_view name, Start start, int64_t at_ms);
// What was learned of it in place of what was known; adds the model if it is new.
Result<void> note_learned(Connection& connection, std::string_view name, uint64_t memory_bytes, int64_t cold_ms, int64_t thaw_ms, int64_t at_ms);
Result<std::vector<ModelSeen>> all_models_seen(Connection& connection);  // by name

}  // namespace torpor::store
