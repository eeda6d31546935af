// How a worker comes to life: cold, or from its image. Loop thread.
#include "base/log.hh"
#include "base/text.hh"
#include "gpu/limits.hh"
#include "gpu/pool.hh"
#include "gpu/slot.hh"
#include "gpu/worker_log.hh"

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>

namespace torpor::gpu {

namespace {

// The fingerprint's first line, see make_image.
pid_t pid_in(const std::string& fingerprint) {
    pid_t pid = 0;
    if (fingerprint.starts_with("pid ")) std::from_chars(fingerprint.data() + 4, fingerprint.data() + fingerprint.size(), pid);
    return pid;
}

double ms_since(Clock::time_point start) {
    return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

}  // namespace

// Does what the waiting requests need next, from whatever state the worker is in.
void Pool::advance(const SlotPtr& slot) {
    State state{};
    bool held = false;
    {
        std::lock_guard lock(mutex_);
        if (slot->queue.empty()) return;
        state = slot->state;
        held = slot->held;
    }
    switch (state) {
        case State::ready:
        case State::busy:
            if (!held) grant_waiting(slot, Wake::warm);
            break;
        case State::asleep: thaw(slot); break;
        case State::stopped:
        case State::failed: start_cold(slot); break;
        case State::starting:
        case State::resuming:
        case State::suspending: break;  // what is under way calls again when it is done
    }
}

void Pool::start_cold(const SlotPtr& slot) {
    auto plan = plan_worker(slot->model, options_.folders, programs_);
    move(*slot, State::starting);
    if (!plan) return start_failed(slot, plan.error());
    auto worker = Worker::start(loop_, *plan, options_.launcher, [this, slot](Ending ending) { worker_ended(slot, ending); });
    if (!worker) return start_failed(slot, worker.error());
    slot->worker = std::move(*worker);
    slot->served = 0;
    {
        std::lock_guard lock(mutex_);
        slot->pid = slot->worker->pid();
        ++slot->generation;
        slot->leases = 0;
        slot->last_error.clear();  // of an earlier start: this one will have its own
    }
    const pid_t pid = slot->worker->pid();
    options_.catalogue->put_running({slot->name, pid, start_time_of(pid).value_or(0), plan->token});
    log::info("{}: starting {} (pid {})", slot->name, plan->engine->name, pid);
    slot->worker->await_ready([this, slot, start = Clock::now()](Result<void> ready) {
        if (!ready) {
            slot->worker->end(true);
            std::lock_guard lock(mutex_);
            slot->last_error = ready.error().message;
            return;
        }
        log::info("{}: ready after {:.0f} ms (cold)", slot->name, ms_since(start));
        {
            std::lock_guard lock(mutex_);
            ++slot->cold_starts;
        }
        options_.catalogue->note_start(slot->name, false);
        became_ready(slot, Wake::cold);
    });
}

void Pool::became_ready(const SlotPtr& slot, Wake wake) {
    slot->ready_at = Clock::now();
    {
        std::lock_guard lock(mutex_);
        slot->connections = slot->worker->connections();
        slot->held = slot->order != Order::none;
        slot->needs_care = true;
        slot->last_error.clear();
    }
    move(*slot, State::ready);
    slot->log_timer->start(worker_log_check, [this, slot] { care(slot); });
    if (slot->order != Order::none) return obey(slot, false);
    grant_waiting(slot, wake);
    care(slot);
}

void Pool::start_failed(const SlotPtr& slot, Error error) {
    const int doublings = std::min(slot->failures++, 10);
    const auto backoff = std::min<std::chrono::milliseconds>(backoff_first * (1 << doublings), backoff_max);
    log::warning("{}: {}", slot->name, error.text());
    {
        std::lock_guard lock(mutex_);
        slot->retry_at = Clock::now() + backoff;
        slot->last_error = error.text();
    }
    move(*slot, State::failed);
    fail_all(slot, error);
    finish_order(slot, Failure(error));
    forget_if_removed(slot);
}

// Called once all processes of the worker have ended, whoever ended them.
void Pool::worker_ended(const SlotPtr& slot, Ending ending) {
    State state{};
    std::string known_error;
    {
        std::lock_guard lock(mutex_);
        state = slot->state;
        known_error = slot->last_error;
        slot->leases = 0;
        ++slot->generation;
        slot->held = false;
        slot->needs_care = false;
        slot->keep_alive.reset();
        if (slot->connections) slot->connections->close_all();
    }
    const std::string words = slot->worker->last_words();
    rotate_worker_log(slot->worker->plan().log);
    slot->idle_timer->cancel();
    give_up_quiet(slot);
    slot->log_timer->cancel();
    options_.catalogue->remove_running(slot->name);
    // The worker's own callback is on the stack: let it go after this.
    loop_.post([gone = std::shared_ptr<Worker>(std::move(slot->worker))] {});

    const State to = slot->snapshot ? State::asleep : State::stopped;
    if (state == State::suspending) {
        move(*slot, to);
        finish_order(slot, {});
    } else if (state == State::starting) {
        std::string what = known_error.empty() ? fmt::format("{} {} while it was loading", slot->model.engine, ending.text())
                                               : known_error;
        return start_failed(slot, Error{Kind::engine, std::move(what), words});
    } else if (state == State::resuming) {
        return thaw_failed(slot, Error{Kind::engine, "the thawed process " + ending.text(), words});
    } else {
        log::warning("{}: its worker {}", slot->name, ending.text());
        const bool young = Clock::now() - slot->ready_at < crash_is_young;
        // SIGKILL comes from outside: no failure of an engine that had work given to it.
        const bool is_victim = ending.signal == SIGKILL && slot->served > 0;
        slot->failures = young && !is_victim ? slot->failures + 1 : 0;
        constexpr int young_crashes_max = 5;
        if (slot->failures >= young_crashes_max) {
            return start_failed(slot, Error{Kind::engine, fmt::format("its worker {} again and again", ending.text()), words});
        }
        move(*slot, to);
        finish_order(slot, {});
    }
    if (slot->order == Order::stop) return obey(slot, false);
    advance(slot);
    forget_if_removed(slot);
}

// A request found the process unreachable before we were told that it ended.
void Pool::check_alive(const SlotPtr& slot) {
    if (!slot->worker || slot->is_imaging || slot->quiet_timer->is_active()) return;
    {
        std::lock_guard lock(mutex_);
        slot->held = true;
    }
    // A dying process closes its sockets before it can be reaped; give its ending time to reach us.
    slot->quiet_timer->start(dying_time_max, [this, slot] {
        {
            std::lock_guard lock(mutex_);
            slot->held = slot->order != Order::none;
        }
        advance(slot);
        care(slot);
    });
}

void Pool::thaw(const SlotPtr& slot) {
    auto plan = plan_worker(slot->model, options_.folders, programs_);
    if (!plan) {
        move(*slot, State::stopped);
        return start_cold(slot);  // fails with the same reason, said once
    }
    if (auto reason = why_void(*slot->snapshot, plan->command_line, options_.criu.program)) {
        log::info("{}: its snapshot is void: {}; starting cold", slot->name, *reason);
        drop_snapshot(slot);
        move(*slot, State::stopped);
        return start_cold(slot);
    }
    move(*slot, State::resuming);
    auto log = open_worker_log(plan->log);
    if (!log) return thaw_failed(slot, log.error());
    if (!plan->endpoint.socket.empty()) ::unlink(plan->endpoint.socket.c_str());
    const pid_t pid = pid_in(slot->snapshot->fingerprint);
    const auto start = Clock::now();
    auto call = CriuCall::restore(loop_, options_.criu, slot->snapshot->path / "image", log->get(), plan->log,
                                  [this, slot, plan = *plan, pid, start](Result<void> restored) {
                                      loop_.post([gone = std::shared_ptr<CriuCall>(std::move(slot->criu))] {});
                                      if (restored && !is_given_up(slot)) return thawed(slot, plan, pid, start);
                                      end_half_made(loop_, pid);
                                      if (is_given_up(slot)) return thaw_given_up(slot);
                                      thaw_failed(slot, restored.error());
                                  });
    if (!call) return thaw_failed(slot, call.error());
    slot->criu = std::move(*call);
}

void Pool::thawed(const SlotPtr& slot, const WorkerPlan& plan, pid_t pid, Clock::time_point start) {
    const double criu_ms = ms_since(start);
    // Its environment is that of the process in the image, and so is its token.
    WorkerPlan its_plan = plan;
    its_plan.token.clear();
    if (const size_t at = slot->snapshot->fingerprint.find("\ntoken "); at != std::string::npos) {
        its_plan.token = slot->snapshot->fingerprint.substr(at + 7, 32);
    }
    auto worker = Worker::adopt(loop_, its_plan, pid, [this, slot](Ending ending) { worker_ended(slot, ending); });
    if (!worker) return thaw_failed(slot, worker.error());
    slot->worker = std::move(*worker);
    slot->served = 0;
    {
        std::lock_guard lock(mutex_);
        slot->pid = pid;
        ++slot->generation;
        slot->leases = 0;
    }
    options_.catalogue->put_running({slot->name, pid, start_time_of(pid).value_or(0), its_plan.token});
    slot->worker->await_ready([this, slot, start, criu_ms](Result<void> ready) {
        if (!ready) {
            slot->worker->end(true);  // worker_ended goes on with a cold start
            return;
        }
        {
            std::lock_guard lock(mutex_);
            ++slot->thaws;
        }
        options_.catalogue->note_start(slot->name, true);
        log::info("{}: thawed (pid {}) in {:.1f} ms, criu {:.1f} ms", slot->name, slot->worker->pid(), ms_since(start), criu_ms);
        became_ready(slot, Wake::thawed);
    });
}

bool Pool::is_given_up(const SlotPtr& slot) const {
    std::lock_guard lock(mutex_);
    return slot->state == State::suspending;
}

// Told to end while CRIU was at work. The image is still good.
void Pool::thaw_given_up(const SlotPtr& slot) {
    move(*slot, slot->snapshot ? State::asleep : State::stopped);
    finish_order(slot, {});
}

// Whatever went wrong with an image, the request that asked is answered by a cold start.
void Pool::thaw_failed(const SlotPtr& slot, const Error& error) {
    log::warning("{}: could not be thawed, starting cold and dropping the snapshot: {}", slot->name, error.text());
    drop_snapshot(slot);
    start_cold(slot);
}

}  // namespace torpor::gpu
