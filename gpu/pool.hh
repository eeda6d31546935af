// The pool of local model workers: who runs, who sleeps, who waits.
//
// Everything that starts, ends, images or thaws happens on the loop's thread; pool_wake.cc and
// pool_sleep.cc hold it. Requests come in on any thread through acquire() (pool_acquire.cc) and need the
// loop only when the worker is not ready. A model's states and their legal moves are in state.cc.
#pragma once

#include "base/event_loop.hh"
#include "base/folders.hh"
#include "gpu/criu.hh"
#include "gpu/engine.hh"
#include "gpu/lease.hh"
#include "gpu/limits.hh"
#include "gpu/model_file.hh"
#include "gpu/pressure.hh"
#include "gpu/prompt_store.hh"
#include "gpu/room.hh"
#include "gpu/snapshot.hh"
#include "gpu/state.hh"

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace torpor::gpu {

struct Waiter;
struct WorkerPlan;
struct NoImage;
enum class Order;

struct ModelStatus {
    Model model;
    State state = State::stopped;
    bool is_frozen = false;  // asleep in the tier `frozen`
    pid_t pid = 0;
    uint64_t memory_bytes = 0;    // proportional set size of all its processes
    uint64_t reserved_bytes = 0;  // of the memory budget, for them
    bool waits_for_memory = false;
    uint64_t snapshot_bytes = 0;
    uint64_t prompt_bytes = 0;    // states of prompts on disk
    std::string no_snapshot;      // why there is none, where it is for want of room
    size_t requests = 0;
    size_t waiting = 0;
    int64_t since_ms = 0;
    std::string last_error;
    uint64_t cold_starts = 0;
    uint64_t thaws = 0;
};

class Pool {
  public:
    struct Options {
        Folders folders;
        std::string launcher;  // torpor-launch
        CriuTool criu;
        Catalogue* catalogue = nullptr;
        size_t requests_per_model = requests_per_model_default;
        size_t queue_max = queue_max_default;
        uint64_t prompt_bytes_max = 0;  // states of prompts on disk; 0: none are kept
    };

    // Loop thread, before it runs; so is the destructor, after shut_down() and after the loop has ended.
    Pool(EventLoop& loop, Options options);
    ~Pool();
    Pool(const Pool&) = delete;
    Pool& operator=(const Pool&) = delete;

    // Programs named in the configuration, for workers started from now on. Loop thread.
    void set_programs(EnginePrograms programs) { programs_ = std::move(programs); }

    // The memory that all workers may take together; nothing: no limit. Loop thread.
    void set_memory(std::optional<uint64_t> bytes);

    // Any thread.
    struct Memory {
        std::optional<uint64_t> budget;
        uint64_t taken = 0;
        bool is_pressure_watched = false;
    };
    Memory memory() const;
    // `invalid`, with both numbers, if a worker of this model could never be started. Any thread.
    Result<void> check_fits(const Model& model) const;

    // From now on, when the kernel says that memory is short: one idle worker is put to sleep, the one whose loss hurts least.
    // Loop thread, before it runs.
    void watch_pressure();

    // What all images together may take; nothing: what leaves enough of the disk free. Takes effect with the next
    // set_models(). Loop thread.
    void set_disk_budget(std::optional<uint64_t> bytes) { disk_budget_ = bytes; }

    // Makes this the list of models. Workers whose model is gone or changed are drained and stopped.
    // Loop thread.
    void set_models(const std::vector<Model>& models);

    // Takes back workers of an earlier daemon that are proved to be ours (pid and start time, token, socket), and ends
    // what else it left behind. `after_crash`: looks thoroughly, also for what it could not write down any more.
    // Loop thread, once, after the first set_models().
    void adopt_workers(bool after_crash);

    // Who wants a lease on which model's worker.
    struct Wish {
        std::string_view model;        // or an alias, or an adapter
        std::string_view principal;    // those who wait are served in turn, one principal after the other
        uint64_t dead_generation = 0;  // a process that the caller found dead: the pool looks before it grants again
        // How long the worker is to stay awake after its last request, instead of the model's `idle`; negative: for
        // ever. Nothing: as before.
        std::optional<std::chrono::milliseconds> keep_alive = {};
    };
    using OnLease = std::function<void(Result<Lease>)>;
    using Ticket = std::shared_ptr<Waiter>;

    // A lease, waking the worker if need be; never blocks, any thread. Either the outcome at once, or nothing:
    // then `ticket` is set and `later` is called once, on any thread, and must not block or call the pool.
    // Without `later` nothing means that there would be a wait, and nobody waits.
    // Errors: not_found (with the nearest name), busy (queue full), engine (with its last words), unavailable
    // (shutting down). There is no deadline but the caller's: cancel().
    std::optional<Result<Lease>> acquire(const Wish& wish, OnLease later, Ticket& ticket);
    // False if `later` was called already or is about to be.
    bool cancel(const Ticket& ticket);

    // The same for a thread that may wait; any but the loop's. `gone_fd`: a socket; when its peer hangs up
    // the wait ends with `cancelled`. -1: none. Adds `timeout`.
    Result<Lease> acquire_blocking(const Wish& wish, int gone_fd, std::chrono::milliseconds wait_max);

    // Blocks until the model sleeps (or is stopped, where it cannot be frozen), or is ended and its image
    // gone for stop(). Waits for requests under way unless `force`. `keep_state`: the next wake-up has the state that it
    // has now; where the engine's prompts are not all of that, by a new image. If none can be made the worker goes on, and
    // the error says why. Any thread but the loop's.
    Result<void> suspend(std::string_view model, bool force, bool keep_state = false);
    Result<void> stop(std::string_view model, bool force);

    // Removes the image. The worker, if it runs, goes on. Any thread but the loop's.
    Result<uint64_t> remove_snapshot(std::string_view model);

    struct SnapshotStatus {
        Snapshot snapshot;
        std::string why_void;  // empty: valid
    };
    std::vector<SnapshotStatus> snapshots();

    struct DiskUse {
        uint64_t used = 0, budget = 0, free = 0;
        uint64_t needed_max = 0;  // by the largest image, also one that is not there for want of room
        bool is_budget_said = false;
    };
    // Any thread but the loop's.
    DiskUse disk_use();

    // Reads the whole image and compares its checksums: why it could not be thawed, or empty. Blocks as long as the
    // disk takes; any thread but the loop's.
    Result<SnapshotStatus> verify_snapshot(std::string_view model);

    // Any thread. Measures memory, which takes about a millisecond a running worker.
    Result<ModelStatus> status(std::string_view model);
    std::vector<ModelStatus> statuses();

    // Any thread, cheap. The model behind a name, an alias or an adapter's name. `not_found` names the models that there are; of those
    // only the ones in `known_to_asker` (own names), unless that is empty.
    Result<Model> find(std::string_view name_or_alias, const std::vector<std::string>& known_to_asker = {}) const;
    std::vector<Model> models() const;
    const CriuTool& criu() const { return options_.criu; }

    // No new leases; every worker is ended (those with an image sleep). Loop thread; `done` follows.
    void shut_down(std::function<void()> done);

  private:
    friend class Lease;
    using SlotPtr = std::shared_ptr<Slot>;

    // pool.cc
    SlotPtr look_up(std::string_view name_or_alias) const;  // mutex_ held
    Failure unknown_model(std::string_view name, const std::vector<std::string>& known_to_asker = {}) const;  // mutex_ held
    ModelStatus status_of(const Slot& slot) const;          // mutex_ held
    void set_up(const SlotPtr& slot, std::optional<Snapshot> snapshot);
    void move(Slot& slot, State to);
    void forget_if_removed(const SlotPtr& slot);
    Result<void> run_on_loop(std::function<void(std::function<void(Result<void>)>)> action);

    Result<WorkerPlan> make_plan(const Model& model, const Endpoint& known = {}) const;
    std::filesystem::path image_beside(const Slot& slot) const;  // where an image lies until it is whole
    Result<WorkerPlan> plan_for_snapshot(const Slot& slot) const;

    // pool_adopt.cc
    void remove_leftovers(const std::vector<Snapshot>& snapshots);
    Result<void> adopt(const Catalogue::Running& row, const std::vector<pid_t>& pids);

    // pool_acquire.cc
    Lease grant(const SlotPtr& slot);  // mutex_ held
    void release(const SlotPtr& slot, uint64_t generation);
    bool has_room(const Slot& slot) const;  // mutex_ held
    void grant_waiting(const SlotPtr& slot, Wake wake);
    void fail_all(const SlotPtr& slot, const Error& error);

    // pool_room.cc
    Error does_not_fit(Kind kind, const Model& model, uint64_t bytes, uint64_t most, const std::vector<std::string>& pinned) const;  // mutex_ held
    uint64_t need_of(const Slot& slot) const;            // mutex_ held
    Room::Use use_of_memory(const Slot& slot) const;     // mutex_ held
    std::vector<Room::Occupant> occupants() const;       // mutex_ held; loop thread
    std::chrono::milliseconds wake_time(const Slot& slot, uint64_t bytes) const;
    void enter(const SlotPtr& slot);
    void enter_unasked(Slot& slot);
    void leave(Slot& slot);
    void make_room();
    void relieve();
    void measure_memory(const SlotPtr& slot);

    // pool_wake.cc
    void wake(const SlotPtr& slot);
    void advance(const SlotPtr& slot);
    void start_cold(const SlotPtr& slot);
    void thaw(const SlotPtr& slot);
    void thaw_when_free(const SlotPtr& slot, const WorkerPlan& plan, std::chrono::steady_clock::time_point start);
    void check_pages(const SlotPtr& slot);
    void restore(const SlotPtr& slot, const WorkerPlan& plan, pid_t pid, std::chrono::steady_clock::time_point start);
    void start_cold_instead(const SlotPtr& slot, const std::string& why);
    void thaw_failed(const SlotPtr& slot, Error error);
    void thawed(const SlotPtr& slot, const WorkerPlan& plan, pid_t pid, std::chrono::steady_clock::time_point start);
    bool is_given_up(const SlotPtr& slot) const;
    void thaw_given_up(const SlotPtr& slot);
    void became_ready(const SlotPtr& slot, Wake wake);
    void start_failed(const SlotPtr& slot, Error error);
    void worker_ended(const SlotPtr& slot, Ending ending);
    void unhold(const SlotPtr& slot);
    void check_alive(const SlotPtr& slot);

    // pool_disk.cc
    bool can_thaw(const Slot& slot) const;
    std::vector<SlotPtr> all_slots() const;
    uint64_t images_bytes() const;
    void take_histories(const std::vector<SlotPtr>& fresh);
    void note_start(const SlotPtr& slot, bool thawed, Clock::time_point since);
    bool make_room_on_disk(const SlotPtr& newcomer, uint64_t needed, uint64_t limit);
    void evict(const SlotPtr& slot, const SlotPtr& newcomer);
    void drop_unclaimed(const std::string& model);
    void hold_to_budget();
    bool has_room_to_dump(const SlotPtr& slot);
    bool has_room_to_keep(const SlotPtr& slot, uint64_t bytes);
    bool lacks_room(const SlotPtr& slot, const Error& error);
    bool has_room_come(const Slot& slot) const;
    void set_no_image(const SlotPtr& slot, std::optional<NoImage> no_image);

    // pool_sleep.cc
    void care(const SlotPtr& slot);
    std::optional<std::chrono::milliseconds> idle_of(const Slot& slot) const;  // mutex_ held
    void plan_idle(const SlotPtr& slot);
    void give_order(const SlotPtr& slot, Order order, bool force, std::function<void(Result<void>)> observer);
    void obey(const SlotPtr& slot, bool force);
    void interrupt_start(const SlotPtr& slot, bool force);
    void give_up_quiet(const SlotPtr& slot);
    Result<void> check_state_can_be_kept(const Slot& slot) const;
    void begin_suspend(const SlotPtr& slot);
    void save_prompts(const SlotPtr& slot, std::function<void()> done);
    void keep_state(const SlotPtr& slot);
    void end_worker(const SlotPtr& slot);
    void finish_order(const SlotPtr& slot, Result<void> result);
    bool may_have_image(const Slot& slot) const;  // looks at no disk
    bool wants_image(const Slot& slot) const;     // mutex_ not held
    void image_when_quiet(const SlotPtr& slot);
    void make_image(const SlotPtr& slot, std::function<void()> dumped, std::function<void()> done);
    void keep_image(const SlotPtr& slot, const std::string& fingerprint, Result<void> result,
                    std::function<void()> done);
    void image_written(const SlotPtr& slot, const std::string& fingerprint, Result<void> result);
    void drop_snapshot(const SlotPtr& slot);

    EventLoop& loop_;
    const Options options_;
    EnginePrograms programs_;                    // loop thread
    std::unique_ptr<PromptStore> prompts_;       // any thread; null: none are kept
    std::optional<uint64_t> disk_budget_;        // loop thread
    std::map<std::string, Snapshot> unclaimed_;  // loop thread; of models that are not configured (any more)

    mutable std::mutex mutex_;
    std::map<std::string, SlotPtr, std::less<>> slots_;          // guarded by mutex_
    std::map<std::string, std::string, std::less<>> aliases_;    // guarded by mutex_; alias or adapter to name
    bool closing_ = false;                                       // guarded by mutex_
    Room room_;                                                  // guarded by mutex_; changed on the loop only
    std::unique_ptr<Timer> room_timer_;                          // loop thread
    std::vector<std::unique_ptr<Pressure>> pressures_;           // loop thread; not changed while it runs

    std::function<void()> on_closed_;  // loop thread
};

}  // namespace torpor::gpu
