// How a worker is imaged, put to sleep, and ended. Loop thread.
#include "base/log.hh"
#include "base/text.hh"
#include "gpu/image_check.hh"
#include "gpu/limits.hh"
#include "gpu/pool.hh"
#include "gpu/shared_files.hh"
#include "gpu/slot.hh"
#include "gpu/worker_log.hh"
#include "gpu/zero_pages.hh"

#include <filesystem>

namespace torpor::gpu {

namespace {

namespace fs = std::filesystem;

int64_t now_ms() {
    return std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::system_clock::now().time_since_epoch()).count();
}

}  // namespace

// Looks after a worker that nobody uses just now: orders first, then its image, then its idle time.
void Pool::care(const SlotPtr& slot) {
    if (!slot->worker || !slot->idle_timer) return;
    measure_memory(slot);
    if (!slot->log_timer->is_active()) {
        rotate_worker_log(slot->worker->plan().log);
        slot->log_timer->start(worker_log_check, [this, slot] { care(slot); });
    }
    {
        std::lock_guard lock(mutex_);
        if (slot->state != State::ready) return;
    }
    if (slot->order != Order::none) return obey(slot, false);
    if (wants_image(*slot)) return image_when_quiet(slot);
    bool waited_for = false;  // by somebody in line for memory
    {
        // From here on no request needs the loop: the idle timer looks at last_used by itself.
        std::lock_guard lock(mutex_);
        const auto idle = idle_of(*slot);
        slot->needs_care = idle && idle->count() == 0;
        waited_for = room_.has_line();
    }
    if (waited_for) make_room();
    plan_idle(slot);
}

// How long it stays awake when nobody asks; nothing: for ever.
std::optional<std::chrono::milliseconds> Pool::idle_of(const Slot& slot) const {
    if (slot.keep_alive) return slot.keep_alive->count() < 0 ? std::nullopt : slot.keep_alive;
    return slot.model.pinned ? std::nullopt : slot.model.idle;
}

void Pool::plan_idle(const SlotPtr& slot) {
    slot->idle_timer->cancel();
    Clock::duration left{};
    {
        std::lock_guard lock(mutex_);
        const auto idle = idle_of(*slot);
        if (!idle) return;
        const auto unused_since = slot->leases > 0 ? Clock::now() : slot->last_used;
        left = unused_since + *idle - Clock::now();
    }
    if (left <= Clock::duration::zero()) return give_order(slot, Order::suspend, false, {});
    const auto wait = std::chrono::ceil<std::chrono::milliseconds>(left);
    slot->idle_timer->start(wait, [this, slot] { plan_idle(slot); });
}

void Pool::give_order(const SlotPtr& slot, Order order, bool force, std::function<void(Result<void>)> observer) {
    if (observer) slot->observers.push_back(std::move(observer));
    if (order > slot->order) slot->order = order;  // stop outranks suspend
    obey(slot, force);
}

void Pool::obey(const SlotPtr& slot, bool force) {
    State state{};
    bool free = false;
    const bool imaging = slot->is_imaging;
    {
        std::lock_guard lock(mutex_);
        state = slot->state;
        free = slot->leases == 0;
        if (state == State::ready || state == State::busy) {
            slot->held = true;  // new requests wait
            slot->needs_care = true;
        }
    }
    switch (state) {
        case State::asleep:
            if (slot->order == Order::stop) {
                drop_snapshot(slot);
                move(*slot, State::stopped);
            }
            [[fallthrough]];
        case State::stopped: return finish_order(slot, {});
        case State::failed:
            drop_snapshot(slot);
            move(*slot, State::stopped);
            return finish_order(slot, {});
        case State::starting:
            if (force || slot->order == Order::stop) interrupt_start(slot, force);
            return;
        case State::resuming:
            if (force) interrupt_start(slot, force);
            return;
        case State::suspending: return;  // becomes ready or ends soon, and asks again
        case State::ready:
        case State::busy: break;
    }
    if (!free && !force) return;  // care() asks again after the last release
    if (imaging && !force) return;  // so does the end of the imaging
    begin_suspend(slot);
}

// Ends a worker that loads or is being thawed. Those who wait for it are served by the next one, but by force they
// are sent away: it may hang, and so would the next.
void Pool::interrupt_start(const SlotPtr& slot, bool force) {
    if (force) fail_all(slot, Error{Kind::unavailable, fmt::format("{} was stopped while it was loading", slot->name), {}});
    move(*slot, State::suspending);
    if (slot->worker) return end_worker(slot);
    if (slot->criu) slot->criu->kill();  // its end goes on in thaw_given_up()
}

// Stops waiting for a quiet moment; an image that waits for one has not begun and is not made.
void Pool::give_up_quiet(const SlotPtr& slot) {
    if (slot->quiet_timer->is_active()) slot->is_imaging = false;
    slot->quiet_timer->cancel();
}

void Pool::begin_suspend(const SlotPtr& slot) {
    bool is_unused = false, image_first = false;
    {
        std::lock_guard lock(mutex_);
        is_unused = slot->order == Order::suspend && slot->leases == 0 && slot->worker;
        image_first = is_unused && !closing_;
    }
    move(*slot, State::suspending);
    slot->idle_timer->cancel();
    give_up_quiet(slot);
    is_unused = is_unused && !slot->is_imaging;  // a process that is being imaged stands still
    image_first = image_first && is_unused;
    // Killed meanwhile, it may have a successor by then.
    const auto is_same = [slot, worker = slot->worker.get(), generation = slot->generation] {
        return slot->worker.get() == worker && slot->generation == generation;
    };
    const auto go_on = [this, slot, image_first, is_same] {
        if (!is_same()) return;
        const bool keeps_state = slot->keep_state && !slot->worker->plan().keeps_prompts;
        if (!image_first || !(keeps_state || wants_image(*slot))) return end_worker(slot);
        make_image(slot, [] {}, [this, slot, keeps_state, is_same] {
            if (is_same()) keeps_state ? keep_state(slot) : end_worker(slot);
        });
    };
    is_unused && slot->prompts ? save_prompts(slot, go_on) : go_on();
}

// `done` is called in any case, and soon: somebody may be waiting for the memory.
void Pool::save_prompts(const SlotPtr& slot, std::function<void()> done) {
    auto is_over = std::make_shared<bool>(false);
    const auto finish = [slot, is_over, done = std::move(done)] {
        if (std::exchange(*is_over, true)) return;
        slot->quiet_timer->cancel();
        done();
    };
    slot->quiet_timer->start(prompt_save_time_max, finish);
    slot->prompts->save_all(finish);
}

Result<void> Pool::check_state_can_be_kept(const Slot& slot) const {
    if (!slot.worker || slot.worker->plan().keeps_prompts) return {};  // without a process there is none
    if (!slot.model.snapshot) return fail(Kind::invalid, "{} has snapshot = \"off\" in its file: its state cannot be kept", slot.name);
    if (!options_.criu.is_offered()) return fail(Kind::unavailable, "its state cannot be kept: {}", options_.criu.why_not);
    return {};
}

// The image has been made, or could not be.
void Pool::keep_state(const SlotPtr& slot) {
    if (slot->snapshot && is_with_state(*slot->snapshot) && slot->snapshot->created_at_ms >= slot->state_since_ms) return end_worker(slot);
    move(*slot, State::ready);
    finish_order(slot, fail(Kind::engine, "{} goes on: its state could not be kept; the daemon's log says why", slot->name));
    unhold(slot);
    care(slot);
}

void Pool::end_worker(const SlotPtr& slot) {
    if (!slot->worker) return;
    slot->worker->end(can_thaw(*slot));  // with an image there is nothing left to save
}

void Pool::finish_order(const SlotPtr& slot, Result<void> result) {
    const Order order = std::exchange(slot->order, Order::none);
    slot->keep_state = false;
    if (order == Order::stop && prompts_) prompts_->remove_all(slot->name);
    if (order == Order::stop && slot->snapshot) {
        drop_snapshot(slot);
        std::unique_lock lock(mutex_);
        const bool asleep = slot->state == State::asleep;
        lock.unlock();
        if (asleep) move(*slot, State::stopped);
    }
    {
        std::lock_guard lock(mutex_);
        slot->held = false;
    }
    for (auto& observer : std::exchange(slot->observers, {})) observer(result);
    advance(slot);
    forget_if_removed(slot);
}

bool Pool::may_have_image(const Slot& slot) const {
    return options_.criu.is_offered() && slot.model.snapshot && slot.dump_failures < dump_failures_max;
}

bool Pool::wants_image(const Slot& slot) const {
    return may_have_image(slot) && !slot.snapshot && slot.worker != nullptr && (!slot.no_image || has_room_come(slot));
}

// The image is made at the first quiet moment, so that those who woke the worker do not wait for it.
void Pool::image_when_quiet(const SlotPtr& slot) {
    if (slot->quiet_timer->is_active() || slot->is_imaging) return;
    slot->quiet_timer->start(quiet_before_image, [this, slot] {
        {
            std::lock_guard lock(mutex_);
            if (slot->state != State::ready || slot->leases > 0 || slot->held) return;  // care() comes again
            const auto quiet = Clock::now() - slot->last_used;
            const bool is_asked = slot->prompts && slot->prompts->is_at_work();
            if (is_asked || (slot->served > 0 && quiet < quiet_before_image)) {
                loop_.post([this, slot] { care(slot); });
                return;
            }
            slot->held = true;
        }
        const auto dump = [this, slot] {
            // Once dumped, the process runs again; only its bytes still have to reach the disk.
            make_image(slot, [this, slot] { unhold(slot); }, [this, slot] {
                if (slot->order != Order::none) return obey(slot, false);
                advance(slot);
                care(slot);
            });
        };
        if (slot->served > 0) return dump();
        slot->worker->warm_up([this, dump] { loop_.post(dump); });
    });
}

void Pool::make_image(const SlotPtr& slot, std::function<void()> dumped, std::function<void()> done) {
    slot->is_imaging = true;
    slot->imaging_since = Clock::now();
    const auto finish = [slot, done = std::move(done)] {
        slot->is_imaging = false;
        done();
    };
    if (!slot->worker) return finish();
    set_no_image(slot, {});
    if (!has_room_to_dump(slot)) {
        dumped();
        return finish();
    }
    slot->worker->renew_connections();
    // The engine needs a moment to see that its connections were closed: CRIU cannot dump half of one.
    slot->quiet_timer->start(quiet_before_image, [this, slot, dumped = std::move(dumped), finish] {
        if (!slot->worker) return finish();
        const pid_t pid = slot->worker->pid();
        const fs::path beside = image_beside(*slot);
        std::error_code code;
        fs::remove_all(beside, code);
        fs::create_directories(beside / "image", code);
        fs::permissions(beside, fs::perms::owner_all, code);
        fs::permissions(beside / "image", fs::perms::owner_all, code);
        const WorkerPlan& plan = slot->worker->plan();
        const std::string fingerprint = fmt::format("pid {}\ntoken {}\nport {}\n", pid, plan.token, plan.endpoint.port) +
                                        std::string(slot->keep_state ? with_state_line : "") +
                                        take_fingerprint(pid, plan.model, plan.command_line, options_.criu.program);
        auto call = CriuCall::dump(loop_, options_.criu, pid, beside / "image",
                                   [this, slot, pid, fingerprint, dumped, finish](Result<void> result) {
                                       loop_.post([gone = std::shared_ptr<CriuCall>(std::move(slot->criu))] {});
                                       const bool is_spoilt = !result && result.error().kind == Kind::cancelled;
                                       if (is_spoilt && slot->worker) slot->worker->end(true);  // it had criu's code in it
                                       if (!is_spoilt && slot->worker && slot->worker->pid() == pid) dumped();
                                       keep_image(slot, fingerprint, std::move(result), finish);
                                   });
        if (!call) {
            dumped();
            return keep_image(slot, fingerprint, Failure(call.error()), finish);
        }
        slot->criu = std::move(*call);
    });
}

// Makes room for the image, brings its bytes to the disk beside the loop, then to its place and into the catalogue.
void Pool::keep_image(const SlotPtr& slot, const std::string& fingerprint, Result<void> result,
                      std::function<void()> done) {
    const fs::path place = options_.folders.snapshots() / slot->name;
    struct Kept {
        Result<void> result;
        std::string fingerprint;
    };
    auto kept = std::make_shared<Kept>(Kept{std::move(result), fingerprint});
    const fs::path beside = image_beside(*slot);
    const auto finish = [this, slot, kept, done = std::move(done)] {
        image_written(slot, kept->fingerprint, std::move(kept->result));
        done();
    };
    const auto write = [kept, beside, place] {
        const auto sums = take_checksums(beside / "image");
        if (sums) kept->fingerprint += *sums;
        kept->result = sums ? publish(beside, place, kept->fingerprint) : Failure(sums.error());
    };
    loop_.run_aside(
        [kept, beside] {
            if (!kept->result) return;
            if (const auto dropped = drop_zero_pages(beside / "image"); !dropped) kept->result = Failure(dropped.error());
        },
        [this, slot, kept, beside, write, finish] {
            if (kept->result && !has_room_to_keep(slot, bytes_below(beside))) kept->result = fail(Kind::too_large, "no room");
            if (!kept->result) return finish();
            loop_.run_aside(write, finish);
        });
}

void Pool::image_written(const SlotPtr& slot, const std::string& fingerprint, Result<void> result) {
    const fs::path place = options_.folders.snapshots() / slot->name;
    const fs::path beside = image_beside(*slot);
    if (result && slot->order == Order::stop) {
        std::error_code code;
        fs::remove_all(place, code);
        return;
    }
    if (!result) {
        const bool is_for_room = lacks_room(slot, result.error());
        const bool has_worker = slot->worker && use_of(slot->worker->pid()) == PidUse::taken;
        if (has_worker && !is_for_room) ++slot->dump_failures;  // else it was no failure of CRIU
        if (!is_for_room) log::warning("{}: no snapshot could be made: {}", slot->name, result.error().text());
        std::error_code code;
        fs::remove_all(beside, code);
        return;
    }
    Snapshot snapshot;
    snapshot.model = slot->name;
    snapshot.path = place;
    snapshot.bytes = bytes_below(place / "image");
    snapshot.fingerprint = fingerprint;
    snapshot.created_at_ms = now_ms();
    options_.catalogue->put(snapshot);
    log::info("{}: snapshot of {} made in {} ms", slot->name, format_bytes(snapshot.bytes),
              std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - slot->imaging_since).count());
    {
        std::lock_guard lock(mutex_);
        slot->snapshot_bytes = snapshot.bytes;
    }
    slot->snapshot = std::move(snapshot);
}

void Pool::drop_snapshot(const SlotPtr& slot) {
    if (!slot->snapshot) return;
    options_.catalogue->remove(slot->name);
    if (options_.criu.is_folder_ours) {
        // Of a worker that lives they may be in use, and go with it.
        if (slot->worker) slot->worker->note_shared_files(shared_files_in(slot->snapshot->path / "image"));
        std::error_code code;
        fs::remove_all(slot->snapshot->path, code);
    }
    slot->snapshot.reset();
    std::lock_guard lock(mutex_);
    slot->snapshot_bytes = 0;
}

}  // namespace torpor::gpu
