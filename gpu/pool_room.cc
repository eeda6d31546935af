// How workers come by their memory: what a start or thaw takes is reserved before it begins. Loop thread.
// Who is let in and who must leave is decided in room.cc; what a worker takes is measured, and learned.
#include "base/log.hh"
#include "base/process.hh"
#include "base/text.hh"
#include "gpu/limits.hh"
#include "gpu/pool.hh"
#include "gpu/slot.hh"

#include <algorithm>

namespace torpor::gpu {

void Pool::set_memory(std::optional<uint64_t> bytes) {
    {
        std::lock_guard lock(mutex_);
        room_.set_budget(bytes);
    }
    make_room();
}

Pool::Memory Pool::memory() const {
    std::lock_guard lock(mutex_);
    return {room_.budget(), room_.taken(), !pressures_.empty()};
}

Result<void> Pool::check_fits(const Model& model) const {
    std::lock_guard lock(mutex_);
    const auto found = slots_.find(model.name);
    const bool is_known = found != slots_.end() && found->second->model == model;
    const uint64_t bytes = is_known ? need_of(*found->second) : memory_guess(model);
    if (!room_.budget() || bytes <= *room_.budget()) return {};
    return Failure(does_not_fit(Kind::invalid, model, bytes, *room_.budget(), {}));
}

// A worker's memory before one ever ran is a guess, and said to be one.
Error Pool::does_not_fit(Kind kind, const Model& model, uint64_t bytes, uint64_t most, const std::vector<std::string>& pinned) const {
    const std::string beside = pinned.empty() ? std::string() : fmt::format(" beside the pinned {}", fmt::join(pinned, ", "));
    const auto budget = room_.budget().value_or(0);
    return {kind,
            fmt::format("a worker of {} takes about {}, but of [pool] memory = {} there is at most {}{}: raise it in config.toml, "
                        "take a smaller model or context, or say in the model's file what a worker really takes (memory = \"...\")",
                        model.name, format_bytes(bytes), format_bytes(budget), format_bytes(most), beside),
            {}};
}

uint64_t Pool::need_of(const Slot& slot) const {
    if (slot.model.memory > 0) return slot.model.memory;
    return slot.learned.memory_bytes > 0 ? slot.learned.memory_bytes : memory_guess(slot.model);
}

// A start or thaw begins once there is room for it.
void Pool::enter(const SlotPtr& slot) {
    bool is_new = false;
    {
        std::lock_guard lock(mutex_);
        is_new = !room_.is_in_line(slot->name);
        room_.ask(slot->name, need_of(*slot), Clock::now());
    }
    make_room();
    std::lock_guard lock(mutex_);
    if (!is_new || !room_.is_in_line(slot->name)) return;
    log::info("{}: waits for memory: a worker takes about {}, {} of {} are free", slot->name, format_bytes(need_of(*slot)),
              format_bytes(room_.free()), format_bytes(room_.budget().value_or(0)));
}

// A worker that was there before it could ask.
void Pool::enter_unasked(Slot& slot) {
    std::lock_guard lock(mutex_);
    room_.set(slot.name, need_of(slot));
}

// All that this worker had is free again.
void Pool::leave(Slot& slot) {
    {
        std::lock_guard lock(mutex_);
        room_.give_back(slot.name);
        if (slot.memory_peak > 0) {
            // A single short life says little: what is known goes down by half the way only.
            slot.learned.memory_bytes = std::max(slot.memory_peak, (slot.learned.memory_bytes + slot.memory_peak) / 2);
            slot.memory_peak = 0;
        }
    }
    options_.catalogue->put_learned(slot.name, slot.learned);
    loop_.post([this] { make_room(); });
}

Room::Use Pool::use_of_memory(const Slot& slot) const {
    switch (slot.state) {
        case State::starting:
        case State::resuming: return Room::Use::coming;
        case State::suspending: return Room::Use::leaving;
        default: break;
    }
    if (slot.order != Order::none) return Room::Use::leaving;
    if (slot.model.pinned) return Room::Use::pinned;
    return slot.state == State::busy || slot.leases > 0 || !slot.queue.empty() ? Room::Use::busy : Room::Use::idle;
}

// How long it will take to have it back, as far as is known.
std::chrono::milliseconds Pool::wake_time(const Slot& slot, uint64_t bytes) const {
    const bool is_thawed = slot.snapshot || (may_have_image(slot) && !slot.no_image);
    const int64_t known_ms = is_thawed ? slot.learned.thaw_ms : slot.learned.cold_ms;
    return std::chrono::milliseconds(known_ms > 0 ? known_ms : thaw_ms_guess + static_cast<int64_t>(bytes / thaw_bytes_per_ms_guess));
}

std::vector<Room::Occupant> Pool::occupants() const {
    std::vector<Room::Occupant> all;
    const auto now = Clock::now();
    for (const auto& [name, slot] : slots_) {
        const uint64_t bytes = room_.taken_by(name);
        if (bytes == 0) continue;
        all.push_back({name, use_of_memory(*slot), loss_of(wake_time(*slot, bytes), slot->demand.next(now), bytes)});
    }
    return all;
}

// Lets in whom there is room for, and puts to sleep who must make room for the first in line.
void Pool::make_room() {
    if (!room_timer_) return;  // shut down
    std::vector<SlotPtr> enter, leave;
    std::vector<std::pair<SlotPtr, Error>> hopeless;
    {
        std::lock_guard lock(mutex_);
        for (const std::string& name : room_.line()) {
            const auto found = slots_.find(name);
            const bool is_wanted = found != slots_.end() && !found->second->queue.empty() && !has_process(found->second->state);
            if (!is_wanted) room_.leave_line(name);  // they gave up
        }
        const auto all = occupants();
        const Room::Plan plan = room_.plan(all, Clock::now());
        for (const std::string& name : plan.enter) enter.push_back(slots_.at(name));
        for (const std::string& name : plan.leave) leave.push_back(slots_.at(name));
        std::vector<std::string> pinned;
        for (const Room::Occupant& occupant : all) {
            if (occupant.use == Room::Use::pinned) pinned.push_back(occupant.model);
        }
        for (const std::string& name : plan.hopeless) {
            const SlotPtr& slot = slots_.at(name);
            hopeless.emplace_back(slot, does_not_fit(Kind::unavailable, slot->model, need_of(*slot), room_.most_for(all), pinned));
        }
        for (const auto& [name, slot] : slots_) slot->needs_care |= room_.has_line() && has_process(slot->state);
        if (plan.look_again) {
            const auto wait = std::chrono::ceil<std::chrono::milliseconds>(*plan.look_again - Clock::now());
            room_timer_->start(std::max(std::chrono::milliseconds(1), wait), [this] { make_room(); });
        } else {
            room_timer_->cancel();
        }
    }
    for (const auto& [slot, error] : hopeless) {
        log::warning("{}", error.message);
        fail_all(slot, error);
    }
    for (const SlotPtr& slot : leave) {
        log::info("{}: put to sleep to make room", slot->name);
        give_order(slot, Order::suspend, false, {});
    }
    for (const SlotPtr& slot : enter) wake(slot);
}

void Pool::watch_pressure() {
    for (const auto& file : pressure_files()) {
        auto pressure = Pressure::watch(loop_, file, [this] { relieve(); });
        if (pressure) {
            pressures_.push_back(std::move(*pressure));
        } else {
            log::debug("the kernel will not say when memory is short: {}", pressure.error().text());
        }
    }
}

// The kernel says that memory is short, whatever the budget: one idle worker goes, the cheapest; more if it says so again.
void Pool::relieve() {
    SlotPtr cheapest;
    {
        std::lock_guard lock(mutex_);
        double least = 0;
        for (const Room::Occupant& occupant : occupants()) {
            const SlotPtr& slot = slots_.at(occupant.model);
            if (occupant.use == Room::Use::leaving) return;  // that takes effect first
            if (occupant.use != Room::Use::idle || (cheapest && occupant.loss >= least)) continue;
            least = occupant.loss;
            cheapest = slot;
        }
    }
    if (!cheapest) return;
    log::warning("{}: put to sleep, since the machine is short of memory", cheapest->name);
    give_order(cheapest, Order::suspend, false, {});
}

// Now and then, beside the loop: the kernel walks through the page tables for it.
void Pool::measure_memory(const SlotPtr& slot) {
    if (!slot->worker || slot->is_measuring) return;
    {
        std::lock_guard lock(mutex_);
        const auto now = Clock::now();
        if (now - slot->measured_at < memory_measure_gap) return;
        slot->measured_at = now;
    }
    slot->is_measuring = true;
    auto bytes = std::make_shared<uint64_t>(0);
    loop_.run_aside([bytes, pid = slot->worker->pid()] { *bytes = memory_of(process_tree(pid)); },
                    [this, slot, bytes, generation = slot->generation] {
                        slot->is_measuring = false;
                        {
                            std::lock_guard lock(mutex_);
                            if (slot->generation != generation || !has_process(slot->state) || *bytes <= slot->memory_peak) return;
                            slot->memory_peak = *bytes;
                            if (*bytes <= room_.taken_by(slot->name)) return;
                            room_.set(slot->name, *bytes);
                        }
                        make_room();
                    });
}

}  // namespace torpor::gpu
