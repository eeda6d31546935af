// How requests get leases, on their own threads.
#include "base/fd.hh"
#include "base/text.hh"
#include "gpu/limits.hh"
#include "gpu/pool.hh"
#include "gpu/slot.hh"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace torpor::gpu {

namespace {

double ms_between(Clock::time_point from, Clock::time_point to) {
    return std::chrono::duration<double, std::milli>(to - from).count();
}

}  // namespace

bool Pool::has_room(const Slot& slot) const {
    const bool can_answer = slot.state == State::ready || slot.state == State::busy;
    return can_answer && !slot.held && slot.leases < options_.requests_per_model;
}

// Gives one more lease of the present process.
Lease Pool::grant(const SlotPtr& slot) {
    ++slot->leases;
    ++slot->served;
    slot->state = State::busy;
    slot->last_used = Clock::now();
    return Lease(this, slot, slot->generation, slot->connections);
}

std::optional<Result<Lease>> Pool::acquire(const Wish& wish, OnLease later, Ticket& ticket) {
    SlotPtr slot;
    {
        std::lock_guard lock(mutex_);
        if (closing_) return fail(Kind::unavailable, "torpord is shutting down");
        slot = look_up(wish.model);
        if (!slot) return unknown_model(wish.model);
        slot->demand.note(Clock::now());
        if (wish.keep_alive && wish.keep_alive != slot->keep_alive) {
            slot->keep_alive = wish.keep_alive;
            slot->needs_care = true;
        }
        const bool is_suspect = wish.dead_generation != 0 && wish.dead_generation == slot->generation;
        if (has_room(*slot) && slot->queue.empty() && !is_suspect) return grant(slot);
        if (!later) return {};
        const auto now = Clock::now();
        if (slot->state == State::failed && now < slot->retry_at) {
            const auto wait = std::chrono::duration_cast<std::chrono::milliseconds>(slot->retry_at - now);
            return Failure(Error{Kind::engine,
                                 fmt::format("{} did not start; the next try is in {}", slot->name, format_duration(wait)),
                                 slot->last_error});
        }
        if (slot->queue.size() >= options_.queue_max) {
            return fail_limit(Kind::busy, "queue", fmt::format("{} requests wait for {} already; try again later", options_.queue_max, slot->name));
        }
        ticket = std::make_shared<Waiter>(Waiter{slot, std::string(wish.principal), std::move(later)});
        slot->queue.push(wish.principal, ticket);
    }
    loop_.post([this, slot, dead_generation = wish.dead_generation] {
        if (dead_generation != 0) check_alive(slot);
        advance(slot);
    });
    return {};
}

bool Pool::cancel(const Ticket& ticket) {
    std::lock_guard lock(mutex_);
    return ticket->slot->queue.erase(ticket->principal, ticket);
}

Result<Lease> Pool::acquire_blocking(const Wish& wish, int gone_fd, std::chrono::milliseconds wait_max) {
    struct Answer {
        Fd event{::eventfd(0, EFD_CLOEXEC)};
        Result<Lease> lease = fail(Kind::internal, "nothing happened yet");
    };
    auto answer = std::make_shared<Answer>();
    if (!answer->event) return fail_errno(Kind::unavailable, "out of file descriptors");
    Ticket ticket;
    auto at_once = acquire(
        wish,
        [answer](Result<Lease> lease) {
            answer->lease = std::move(lease);
            const uint64_t one = 1;
            (void)!::write(answer->event.get(), &one, sizeof one);
        },
        ticket);
    if (at_once) return std::move(*at_once);

    const auto end = ticket->since + wait_max;
    Failure reason = fail(Kind::timeout, "{} was not ready within {}", ticket->slot->name, format_duration(wait_max));
    for (;;) {
        const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(end - Clock::now()).count();
        pollfd waits[2] = {{answer->event.get(), POLLIN, 0}, {gone_fd, POLLRDHUP, 0}};
        const int count = ::poll(waits, 2, static_cast<int>(std::max<int64_t>(0, left)));
        if (count < 0 && errno == EINTR) continue;
        if (waits[0].revents == 0) {
            if (waits[1].revents != 0) reason = fail(Kind::cancelled, "the client went away");
            if (cancel(ticket)) return reason;
        }
        uint64_t ignored = 0;
        (void)!::read(answer->event.get(), &ignored, sizeof ignored);  // an answer is there, or about to be
        return std::move(answer->lease);
    }
}

void Pool::release(const SlotPtr& slot, uint64_t generation) {
    bool tell = false, others_wait = false;
    {
        std::lock_guard lock(mutex_);
        slot->last_used = Clock::now();
        if (generation != slot->generation || slot->leases == 0) return;
        --slot->leases;
        if (slot->leases == 0) {
            if (slot->state == State::busy) slot->state = State::ready;
            tell = slot->needs_care || slot->last_used - slot->measured_at > memory_measure_gap;
        }
        others_wait = !slot->queue.empty() && has_room(*slot);
    }
    if (others_wait) grant_waiting(slot, Wake::warm);
    if (tell) {
        loop_.post([this, slot] { care(slot); });
    }
}

// Serves those who wait, as far as there is room.
void Pool::grant_waiting(const SlotPtr& slot, Wake how) {
    const auto now = Clock::now();
    std::vector<std::pair<Ticket, Lease>> granted;
    {
        std::lock_guard lock(mutex_);
        while (!slot->queue.empty() && has_room(*slot)) {
            Ticket ticket = slot->queue.pop();
            Lease lease = grant(slot);
            lease.wake = how;
            (how == Wake::warm ? lease.queue_ms : lease.wake_ms) = ms_between(ticket->since, now);
            granted.emplace_back(std::move(ticket), std::move(lease));
        }
    }
    for (auto& [ticket, lease] : granted) ticket->done(std::move(lease));
}

void Pool::fail_all(const SlotPtr& slot, const Error& error) {
    std::vector<Ticket> failed;
    {
        std::lock_guard lock(mutex_);
        while (!slot->queue.empty()) failed.push_back(slot->queue.pop());
    }
    for (const Ticket& ticket : failed) ticket->done(Failure(error));
}

}  // namespace torpor::gpu
