// How requests get leases, on their own threads.
#include "gpu/limits.hh"
#include "gpu/pool.hh"
#include "gpu/slot.hh"

#include "base/text.hh"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>

namespace torpor::gpu {

namespace {

double ms_between(Clock::time_point from, Clock::time_point to) {
    return std::chrono::duration<double, std::milli>(to - from).count();
}

void wake(const Waiter& waiter) {
    const uint64_t one = 1;
    (void)!::write(waiter.event.get(), &one, sizeof one);
}

}  // namespace

// Gives one more lease of the present process.
Lease Pool::grant(const SlotPtr& slot) {
    ++slot->leases;
    ++slot->served;
    slot->state = State::busy;
    slot->last_used = Clock::now();
    return Lease(this, slot, slot->generation, slot->connections);
}

Result<Lease> Pool::acquire(std::string_view model, int gone_fd, std::chrono::milliseconds wait_max,
                            uint64_t dead_generation) {
    SlotPtr slot;
    auto waiter = std::make_shared<Waiter>();
    {
        std::lock_guard lock(mutex_);
        if (closing_) return fail(Kind::unavailable, "torpord is shutting down");
        slot = look_up(model);
        if (!slot) return unknown_model(model);
        const bool can_answer = slot->state == State::ready || slot->state == State::busy;
        const bool is_suspect = dead_generation != 0 && dead_generation == slot->generation;
        if (can_answer && !slot->held && !is_suspect) return grant(slot);
        const auto now = Clock::now();
        if (slot->state == State::failed && now < slot->retry_at) {
            const auto wait = std::chrono::duration_cast<std::chrono::milliseconds>(slot->retry_at - now);
            return Failure(Error{Kind::engine,
                                 fmt::format("{} did not start; the next try is in {}", slot->name, format_duration(wait)),
                                 slot->last_error});
        }
        if (slot->queue.size() >= queue_max) {
            return fail(Kind::busy, "{} requests wait for {} already; try again later", queue_max, slot->name);
        }
        waiter->event = Fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
        if (!waiter->event) return fail_errno(Kind::unavailable, "out of file descriptors");
        slot->queue.push_back(waiter);
    }
    loop_.post([this, slot, dead_generation] {
        if (dead_generation != 0) check_alive(slot);
        advance(slot);
    });
    return wait_for(slot, waiter, gone_fd, wait_max);
}

Result<Lease> Pool::wait_for(const SlotPtr& slot, const std::shared_ptr<Waiter>& waiter, int gone_fd,
                             std::chrono::milliseconds wait_max) {
    const auto end = waiter->since + wait_max;
    Failure reason = fail(Kind::timeout, "{} was not ready within {}", slot->name, format_duration(wait_max));
    for (;;) {
        const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(end - Clock::now()).count();
        pollfd waits[2] = {{waiter->event.get(), POLLIN, 0}, {gone_fd, POLLRDHUP, 0}};
        const int count = ::poll(waits, 2, static_cast<int>(std::max<int64_t>(0, left)));
        if (count < 0) continue;
        std::lock_guard lock(mutex_);
        if (waiter->done) return std::move(waiter->result);
        if (waits[1].revents != 0) reason = fail(Kind::cancelled, "the client went away");
        if (count == 0 || waits[1].revents != 0) {
            std::erase(slot->queue, waiter);
            return reason;
        }
    }
}

void Pool::release(const SlotPtr& slot, uint64_t generation) {
    bool tell = false;
    {
        std::lock_guard lock(mutex_);
        slot->last_used = Clock::now();
        if (generation != slot->generation || slot->leases == 0) return;
        if (--slot->leases > 0) return;
        if (slot->state == State::busy) slot->state = State::ready;
        tell = slot->needs_care;
    }
    if (tell) {
        loop_.post([this, slot] { care(slot); });
    }
}

void Pool::grant_all(const SlotPtr& slot, Wake how) {
    const auto now = Clock::now();
    std::lock_guard lock(mutex_);
    for (; !slot->queue.empty(); slot->queue.pop_front()) {
        Waiter& waiter = *slot->queue.front();
        Lease lease = grant(slot);
        lease.wake = how;
        (how == Wake::warm ? lease.queue_ms : lease.wake_ms) = ms_between(waiter.since, now);
        waiter.result = std::move(lease);
        waiter.done = true;
        wake(waiter);
    }
}

void Pool::fail_all(const SlotPtr& slot, const Error& error) {
    std::lock_guard lock(mutex_);
    for (; !slot->queue.empty(); slot->queue.pop_front()) {
        Waiter& waiter = *slot->queue.front();
        waiter.result = Failure(error);
        waiter.done = true;
        wake(waiter);
    }
}

}  // namespace torpor::gpu
