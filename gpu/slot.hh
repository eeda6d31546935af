// What the pool keeps of one model. Private to gpu/pool*.cc and lease.cc.
#pragma once

#include "base/event_loop.hh"
#include "gpu/criu.hh"
#include "gpu/fair_queue.hh"
#include "gpu/lease.hh"
#include "gpu/prompt_keeper.hh"
#include "gpu/room.hh"
#include "gpu/snapshot.hh"
#include "gpu/state.hh"
#include "gpu/worker.hh"

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace torpor::gpu {

// One request that waits for a lease. Whoever takes it out of the queue calls `done`, without the pool's mutex.
struct Waiter {
    std::shared_ptr<Slot> slot;
    std::string principal;
    std::function<void(Result<Lease>)> done;
    Clock::time_point since = Clock::now();
};

// What the pool was told to do with the worker as soon as it may.
enum class Order { none, suspend, stop };

// Why a model has no image, and gets none for now.
struct NoImage {
    enum class Until { start, room, reload } until = Until::start;  // the next cold start; more room on the disk
    std::string why;
    uint64_t bytes = 0;        // that it would take
    uint64_t free_needed = 0;  // on the disk, while it is made
};

// What is known of how often a model is started.
struct Usage {
    uint64_t starts = 0;
    Clock::time_point first_start = Clock::now();
    Clock::time_point last_start = Clock::now();
};

// The reading of an image's pages, beside the thaw.
struct PageCheck {
    bool is_done = false;
    std::optional<std::string> damage;
    std::function<void()> then;  // what waits for it
};

struct Slot {
    const std::string name;
    const std::shared_ptr<PromptKeeper> prompts;  // null: not kept

    // Guarded by the pool's mutex.
    Model model;
    State state = State::stopped;
    int64_t since_ms = 0;
    uint64_t generation = 0;                    // of the process
    std::shared_ptr<Connections> connections;   // of the process; set while ready or busy
    size_t leases = 0;                          // of this generation
    bool held = false;                          // no new leases: draining, or being imaged
    bool needs_care = false;                    // tell the loop when the last lease is released
    Clock::time_point measured_at{};            // its memory
    FairQueue<std::shared_ptr<Waiter>> queue;
    std::optional<std::chrono::milliseconds> keep_alive;  // said by a request, of this process; negative: for ever
    Clock::time_point last_used = Clock::now();
    Demand demand;
    uint64_t memory_peak = 0;                   // of this process; 0: not measured yet
    Learned learned;
    pid_t pid = 0;
    uint64_t snapshot_bytes = 0;
    std::optional<NoImage> no_image;            // changed on the loop's thread only
    std::string last_error;
    Clock::time_point retry_at{};
    uint64_t cold_starts = 0;
    uint64_t thaws = 0;
    bool removed = false;

    // The loop's thread only.
    std::unique_ptr<Worker> worker;
    std::unique_ptr<CriuCall> criu;
    std::optional<Snapshot> snapshot;
    Usage usage;
    std::shared_ptr<PageCheck> page_check;      // of the thaw under way
    Order order = Order::none;
    bool keep_state = false;                    // of the order: what the process has in memory
    int64_t state_since_ms = 0;                 // when it was told so
    std::vector<std::function<void(Result<void>)>> observers;  // of the order
    Clock::time_point ready_at{};
    int failures = 0;        // in a row
    int dump_failures = 0;
    bool is_imaging = false;
    Clock::time_point imaging_since{};
    uint64_t served = 0;     // leases granted to this generation
    bool is_measuring = false;  // its memory
    std::unique_ptr<Timer> idle_timer;
    std::unique_ptr<Timer> quiet_timer;
    std::unique_ptr<Timer> dying_timer;  // a process found unreachable
    std::unique_ptr<Timer> log_timer;

    Slot(std::string model_name, std::shared_ptr<PromptKeeper> keeper) : name(std::move(model_name)), prompts(std::move(keeper)) {}
};

}  // namespace torpor::gpu
