// How a worker comes to life: cold, or from its image. Loop thread.
#include "base/log.hh"
#include "base/text.hh"
#include "gpu/image_check.hh"
#include "gpu/limits.hh"
#include "gpu/pool.hh"
#include "gpu/shared_files.hh"
#include "gpu/slot.hh"
#include "gpu/worker_log.hh"

#include <signal.h>
#include <unistd.h>

#include <algorithm>

namespace torpor::gpu {

namespace {

Error damaged(const std::string& how) {
    return {Kind::internal, "its image is damaged: " + how};
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
        case State::asleep:
        case State::stopped:
        case State::failed: enter(slot); break;
        case State::starting:
        case State::resuming:
        case State::suspending: break;  // what is under way calls again when it is done
    }
}

// Its memory is reserved.
void Pool::wake(const SlotPtr& slot) {
    State state{};
    {
        std::lock_guard lock(mutex_);
        state = slot->state;
    }
    if (state == State::asleep) return thaw(slot);
    if (!has_process(state)) start_cold(slot);
}

void Pool::start_cold(const SlotPtr& slot) {
    if (slot->no_image && slot->no_image->until == NoImage::Until::start) set_no_image(slot, {});
    auto plan = make_plan(slot->model);
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
    options_.catalogue->put_running({slot->name, pid, start_time_of(pid).value_or(0), plan->token, plan->endpoint,
                                     command_text(plan->command_line)});
    log::info("{}: starting {} (pid {})", slot->name, plan->engine->name, pid);
    slot->worker->await_ready([this, slot, start = Clock::now()](Result<void> ready) {
        if (!ready) {
            slot->worker->end(true);
            std::lock_guard lock(mutex_);
            slot->last_error = ready.error().message;
            return;
        }
        log::info("{}: ready after {:.0f} ms (cold)", slot->name, ms_since(start));
        note_start(slot, false, start);
        became_ready(slot, Wake::cold);
    });
}

void Pool::became_ready(const SlotPtr& slot, Wake wake) {
    slot->ready_at = Clock::now();
    if (slot->prompts) slot->prompts->worker_is_ready(slot->worker->plan(), slot->worker->pid());
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
    slot->dying_timer->cancel();
    give_up_quiet(slot);
    slot->log_timer->cancel();
    if (slot->prompts) slot->prompts->worker_has_ended();
    if (state != State::resuming) slot->page_check.reset();
    if (can_thaw(*slot)) remove_shared_files(slot->snapshot->path / "image");  // it had no time to do that itself
    options_.catalogue->remove_running(slot->name);
    // The worker's own callback is on the stack: let it go after this.
    loop_.post([gone = std::shared_ptr<Worker>(std::move(slot->worker))] {});

    const State to = can_thaw(*slot) ? State::asleep : State::stopped;
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
    if (!slot->worker) return;
    {
        std::lock_guard lock(mutex_);
        if (std::exchange(slot->held, true)) return;  // whoever holds it looks, too
    }
    // A dying process closes its sockets before it can be reaped; give its ending time to reach us.
    slot->dying_timer->start(dying_time_max, [this, slot] {
        unhold(slot);
        care(slot);
    });
}

// New requests are served again, but not by a process that has ended: its end is about to be told.
void Pool::unhold(const SlotPtr& slot) {
    const bool is_alive = slot->worker && use_of(slot->worker->pid()) == PidUse::taken;
    {
        std::lock_guard lock(mutex_);
        slot->held = slot->order != Order::none || !is_alive;
        if (slot->worker) slot->connections = slot->worker->connections();
    }
    advance(slot);
}

void Pool::thaw(const SlotPtr& slot) {
    auto plan = plan_for_snapshot(*slot);
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
    thaw_when_free(slot, *plan, Clock::now());
}

// The processes come back with the numbers they had. One that has just ended keeps its number until its parent has seen
// that, and the parent of a worker that was taken back is not torpord.
void Pool::thaw_when_free(const SlotPtr& slot, const WorkerPlan& plan, Clock::time_point start) {
    if (is_given_up(slot)) return thaw_given_up(slot);
    const pid_t pid = number_in(slot->snapshot->fingerprint, "pid");
    const PidUse use = use_of(pid);
    if (use == PidUse::taken || (use == PidUse::ended && Clock::now() - start > reap_time_max)) {
        return start_cold_instead(slot, fmt::format("another process is number {} now", pid));
    }
    if (use == PidUse::ended) {
        slot->quiet_timer->start(reap_check, [this, slot, plan, start] { thaw_when_free(slot, plan, start); });
        return;
    }
    // Read, and copied to where CRIU looks, beside the loop: shared memory may be large.
    const auto image = slot->snapshot->path / "image";
    auto ready = std::make_shared<Result<void>>();
    loop_.run_aside(
        [ready, image, fingerprint = slot->snapshot->fingerprint] {
            const auto damage = why_damaged(image, fingerprint, ImagePart::lists);
            *ready = damage ? Failure(damaged(*damage)) : lay_out_shared_files(image);
        },
        [this, slot, plan, pid, start, image, ready] {
            if (is_given_up(slot)) return thaw_given_up(slot);
            if (!*ready && ready->error().kind == Kind::conflict) return start_cold_instead(slot, ready->error().text());
            if (!*ready) return thaw_failed(slot, ready->error());
            restore(slot, plan, pid, start);
        });
}

void Pool::restore(const SlotPtr& slot, const WorkerPlan& plan, pid_t pid, Clock::time_point start) {
    auto log = open_worker_log(plan.log);
    if (!log) return thaw_failed(slot, log.error());
    check_pages(slot);
    if (!plan.endpoint.socket.empty()) ::unlink(plan.endpoint.socket.c_str());
    auto call = CriuCall::restore(loop_, options_.criu, slot->snapshot->path / "image", log->get(), plan.log,
                                  [this, slot, plan, pid, start](Result<void> restored) {
                                      loop_.post([gone = std::shared_ptr<CriuCall>(std::move(slot->criu))] {});
                                      if (restored && !is_given_up(slot)) return thawed(slot, plan, pid, start);
                                      end_half_made(loop_, pid);
                                      if (is_given_up(slot)) return thaw_given_up(slot);
                                      thaw_failed(slot, restored.error());
                                  });
    if (!call) return thaw_failed(slot, call.error());
    slot->criu = std::move(*call);
}

// CRIU reads the same pages at the same time. Nobody is served before both are done.
void Pool::check_pages(const SlotPtr& slot) {
    auto check = slot->page_check = std::make_shared<PageCheck>();
    loop_.run_aside(
        [check, image = slot->snapshot->path / "image", fingerprint = slot->snapshot->fingerprint] {
            check->damage = why_damaged(image, fingerprint, ImagePart::pages);
        },
        [slot, check] {
            check->is_done = true;
            if (slot->page_check != check) return;  // of a thaw that is over
            if (check->damage && slot->criu) return slot->criu->kill();
            if (check->damage && slot->worker) return slot->worker->end(true);
            if (const auto then = std::move(check->then)) then();
        });
}

void Pool::thawed(const SlotPtr& slot, const WorkerPlan& plan, pid_t pid, Clock::time_point start) {
    const double criu_ms = ms_since(start);
    // Its environment is that of the process in the image, and so is its token.
    WorkerPlan its_plan = plan;
    give_token(its_plan, fact_in(slot->snapshot->fingerprint, "token"));
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
    options_.catalogue->put_running({slot->name, pid, start_time_of(pid).value_or(0), its_plan.token, its_plan.endpoint,
                                     command_text(its_plan.command_line)});
    slot->worker->await_ready([this, slot, start, criu_ms](Result<void> ready) {
        if (!ready) {
            slot->worker->end(true);  // worker_ended goes on with a cold start
            return;
        }
        const auto serve = [this, slot, start, criu_ms] {
            slot->page_check.reset();
            if (is_given_up(slot)) return;  // its end is under way
            note_start(slot, true, start);
            log::info("{}: thawed (pid {}) in {:.1f} ms, criu {:.1f} ms", slot->name, slot->worker->pid(), ms_since(start), criu_ms);
            became_ready(slot, Wake::thawed);
        };
        if (slot->page_check->is_done) return serve();
        slot->page_check->then = serve;
    });
}

bool Pool::is_given_up(const SlotPtr& slot) const {
    std::lock_guard lock(mutex_);
    return slot->state == State::suspending;
}

// Told to end while CRIU was at work. The image is still good.
void Pool::thaw_given_up(const SlotPtr& slot) {
    slot->page_check.reset();
    if (slot->snapshot) remove_shared_files(slot->snapshot->path / "image");
    move(*slot, slot->snapshot ? State::asleep : State::stopped);
    finish_order(slot, {});
}

// Whatever went wrong with an image, the request that asked is answered by a cold start.
void Pool::thaw_failed(const SlotPtr& slot, Error error) {
    if (const auto check = std::exchange(slot->page_check, nullptr); check && check->damage) error = damaged(*check->damage);
    if (slot->snapshot) remove_shared_files(slot->snapshot->path / "image");
    // criu's clone3() with the number of another process, or of one of its threads: the image is as good as ever.
    if (error.cause.find("File exists") != std::string::npos) return start_cold_instead(slot, error.cause);
    log::warning("{}: could not be thawed, starting cold and dropping the snapshot: {}", slot->name, error.text());
    drop_snapshot(slot);
    start_cold(slot);
}

void Pool::start_cold_instead(const SlotPtr& slot, const std::string& why) {
    slot->page_check.reset();
    log::info("{}: cannot be thawed this time, starting cold and keeping the snapshot: {}", slot->name, why);
    start_cold(slot);
}

}  // namespace torpor::gpu
