// What the disk has room for: which images stay, and who gets none. Loop thread. The choice itself is disk_room.cc's.
#include "base/fd.hh"
#include "base/log.hh"
#include "base/process.hh"
#include "base/text.hh"
#include "gpu/disk_room.hh"
#include "gpu/limits.hh"
#include "gpu/pool.hh"
#include "gpu/shared_files.hh"
#include "gpu/slot.hh"

#include <algorithm>
#include <cstdlib>
#include <filesystem>

namespace torpor::gpu {

namespace {

namespace fs = std::filesystem;

// Where nothing was measured yet: the order among such images is that of size and use.
constexpr int64_t cold_ms_default = 1000;

double seconds_since(Clock::time_point then) {
    return std::chrono::duration<double>(Clock::now() - then).count();
}

uint64_t kilobytes_in(const std::string& status, std::string_view name) {
    const size_t at = status.find("\n" + std::string(name) + ":");
    return at == std::string::npos ? 0 : std::strtoull(status.c_str() + at + name.size() + 2, nullptr, 10);
}

// The most that an image of these processes can take: memory of their own, and shared memory twice, since files in
// /dev/shm are copied beside CRIU's own pages.
uint64_t image_bytes_max(const std::vector<pid_t>& pids) {
    constexpr size_t status_bytes_max = 64 * 1024;
    uint64_t own = 0, shared = 0;
    for (const pid_t pid : pids) {
        const std::string status = read_file(fmt::format("/proc/{}/status", pid), status_bytes_max).value_or("");
        own += kilobytes_in(status, "RssAnon") + kilobytes_in(status, "VmSwap");
        shared = std::max(shared, kilobytes_in(status, "RssShmem"));
    }
    return (own + 2 * shared) * 1024;
}

bool says_full(const Error& error) {
    const std::string text = error.text();
    return text.find("No space left") != std::string::npos || text.find("quota exceeded") != std::string::npos;
}

}  // namespace

bool Pool::can_thaw(const Slot& slot) const {
    return slot.snapshot && options_.criu.is_offered();
}

std::vector<Pool::SlotPtr> Pool::all_slots() const {
    std::lock_guard lock(mutex_);
    std::vector<SlotPtr> all;
    for (const auto& [name, slot] : slots_) all.push_back(slot);
    return all;
}

uint64_t Pool::images_bytes() const {
    uint64_t sum = 0;
    for (const SlotPtr& slot : all_slots()) sum += slot->snapshot ? slot->snapshot->bytes : 0;
    for (const auto& [model, snapshot] : unclaimed_) sum += snapshot.bytes;
    return sum;
}

// The wall clock may have jumped since: what would lie in the future counts as now.
void Pool::take_histories(const std::vector<SlotPtr>& fresh) {
    if (fresh.empty()) return;
    const int64_t now_ms = std::chrono::duration_cast<std::chrono::milliseconds>(
        std::chrono::system_clock::now().time_since_epoch()).count();
    const auto then = [&](int64_t at_ms) {
        return Clock::now() - std::chrono::milliseconds(std::max<int64_t>(0, now_ms - at_ms));
    };
    for (const Catalogue::History& history : options_.catalogue->histories()) {
        const auto slot = std::ranges::find(fresh, history.model, [](const SlotPtr& one) { return one->name; });
        if (slot == fresh.end()) continue;
        const int64_t last_at_ms = std::max(history.last_at_ms, history.first_at_ms);
        (*slot)->usage = {history.starts, then(history.first_at_ms), then(last_at_ms)};
    }
}

void Pool::note_start(const SlotPtr& slot, bool thawed, Clock::time_point since) {
    const auto ms = std::max<int64_t>(1, std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - since).count());
    ++slot->usage.starts;
    slot->usage.last_start = Clock::now();
    options_.catalogue->note_start(slot->name, thawed);
    std::lock_guard lock(mutex_);
    ++(thawed ? slot->thaws : slot->cold_starts);
    int64_t& known_ms = thawed ? slot->learned.thaw_ms : slot->learned.cold_ms;
    known_ms = known_ms == 0 ? ms : (known_ms + ms) / 2;
}

void Pool::set_no_image(const SlotPtr& slot, std::optional<NoImage> no_image) {
    std::lock_guard lock(mutex_);
    slot->no_image = std::move(no_image);
}

// Removes images of others until `needed` more bytes fit within the limit; false, and nothing is removed, if they never do.
bool Pool::make_room_on_disk(const SlotPtr& newcomer, uint64_t needed, uint64_t limit) {
    std::vector<DiskImage> images;
    for (const auto& [model, snapshot] : unclaimed_) images.push_back({model, snapshot.bytes, 0, 1, false});
    const auto slots = all_slots();
    for (const SlotPtr& slot : slots) {
        if (!slot->snapshot || slot == newcomer) continue;
        std::lock_guard lock(mutex_);
        if (slot->state == State::resuming) {  // it is being read
            if (slot->snapshot->bytes > limit) return false;
            limit -= slot->snapshot->bytes;
            continue;
        }
        const int64_t cold_ms = slot->learned.cold_ms > 0 ? slot->learned.cold_ms : cold_ms_default;
        const double saved_s = static_cast<double>(std::max<int64_t>(1, cold_ms - slot->learned.thaw_ms)) / 1000;
        const bool was_used = slot->worker || slot->cold_starts + slot->thaws > 0;  // by this daemon
        const double unused_s = slot->leases > 0 ? 0 : seconds_since(was_used ? slot->last_used : slot->usage.last_start);
        images.push_back({slot->name, slot->snapshot->bytes, saved_s,
                          guess_next_use(seconds_since(slot->usage.first_start), slot->usage.starts, unused_s), slot->model.pinned});
    }
    const DiskChoice choice = choose_for_disk(needed, limit, std::move(images));
    for (const std::string& model : choice.to_go) {
        if (const auto left = unclaimed_.find(model); left != unclaimed_.end()) {
            drop_unclaimed(model);
            continue;
        }
        evict(*std::ranges::find(slots, model, [](const SlotPtr& one) { return one->name; }), newcomer);
    }
    return choice.fits;
}

void Pool::evict(const SlotPtr& slot, const SlotPtr& newcomer) {
    std::unique_lock lock(mutex_);
    const bool asleep = slot->state == State::asleep;
    lock.unlock();
    const std::string why = newcomer ? "it made room on the disk for that of " + newcomer->name
                                     : "[pool] disk in config.toml has no room for it any more";
    log::info("{}: its snapshot of {} is removed: {}{}", slot->name, format_bytes(slot->snapshot->bytes), why,
              asleep ? "; it was asleep, and its next start is cold" : "");
    set_no_image(slot, NoImage{NoImage::Until::start, why, slot->snapshot->bytes, 0});
    drop_snapshot(slot);
    if (asleep) move(*slot, State::stopped);
}

void Pool::drop_unclaimed(const std::string& model) {
    log::info("{}: its snapshot is removed: there is no model of that name", model);
    options_.catalogue->remove(model);
    std::error_code code;
    if (options_.criu.is_folder_ours) fs::remove_all(unclaimed_[model].path, code);
    unclaimed_.erase(model);
}

// After the configuration was read: the budget may be smaller than it was, and what did not fit may fit now.
void Pool::hold_to_budget() {
    for (const SlotPtr& slot : all_slots()) set_no_image(slot, {});
    const auto space = measure_disk(options_.folders.snapshots());
    if (!space || !options_.criu.is_offered()) return;
    const uint64_t used = images_bytes();
    const uint64_t budget = disk_budget(disk_budget_, *space, used);
    // A disk that others filled is no reason to throw away what lies there.
    if (disk_budget_ && used > budget) make_room_on_disk({}, 0, budget);
}

// Before the worker is disturbed: CRIU writes zero pages, too, so for a moment an image takes more than it will.
bool Pool::has_room_to_dump(const SlotPtr& slot) {
    const auto space = measure_disk(options_.folders.snapshots());
    if (!space) return true;  // the dump itself will say what is wrong
    const uint64_t needed = image_bytes_max(process_tree(slot->worker->pid()));
    if (needed <= space->free || make_room_on_disk(slot, needed, images_bytes() + space->free)) return true;
    const std::string why = fmt::format("making it takes up to {} of disk, but {} has {} free; free some space there",
                                        format_bytes(needed),
                                        options_.folders.snapshots().string(), format_bytes(space->free));
    log::warning("{}: no snapshot can be made, it goes on without one: {}", slot->name, why);
    set_no_image(slot, NoImage{NoImage::Until::room, why, 0, needed});
    return false;
}

// Once its size is known.
bool Pool::has_room_to_keep(const SlotPtr& slot, uint64_t bytes) {
    const auto space = measure_disk(options_.folders.snapshots());
    if (!space) return true;
    const uint64_t budget = disk_budget(disk_budget_, *space, images_bytes() + bytes);
    if (make_room_on_disk(slot, bytes, budget)) return true;
    const std::string how = disk_budget_ ? fmt::format("[pool] disk in config.toml allows {} for all of them; raise it, or say snapshot = "
                                                       "\"off\" in the model's file", format_bytes(budget))
                                         : fmt::format("{} is all that may be used so that enough of the disk stays free; free some space "
                                                       "on it, or say [pool] disk = SIZE in config.toml", format_bytes(budget));
    const std::string why = fmt::format("it takes {}, but {}", format_bytes(bytes), how);
    log::warning("{}: its snapshot is not kept: {}", slot->name, why);
    set_no_image(slot, NoImage{disk_budget_ ? NoImage::Until::reload : NoImage::Until::room, why, bytes, 0});
    return false;
}

// Whether an image failed for want of room; then it is nobody's fault, and is tried again once there is more. Asked
// while what was half made is still there.
bool Pool::lacks_room(const SlotPtr& slot, const Error& error) {
    if (slot->no_image) return true;  // it was found, and said
    const fs::path folder = options_.folders.snapshots();
    const auto space = measure_disk(folder);
    const uint64_t written = bytes_below(image_beside(*slot));
    const uint64_t needed = std::max(written, slot->worker ? image_bytes_max(process_tree(slot->worker->pid())) : 0);
    // CRIU's own log lies on that disk, too, and may have lost the reason.
    if (!space || (!says_full(error) && space->free > disk_more_min)) return false;
    const std::string why = fmt::format("the disk under {} is full: making it takes up to {}, and {} were free; free some space there",
                                        folder.string(), format_bytes(needed), format_bytes(space->free + written));
    log::warning("{}: no snapshot could be made, it goes on without one: {}", slot->name, why);
    const uint64_t more = std::max(needed / 8, disk_more_min);
    set_no_image(slot, NoImage{NoImage::Until::room, why, 0, std::max(needed, space->free + written + more)});
    return true;
}

bool Pool::has_room_come(const Slot& slot) const {
    if (slot.no_image->until != NoImage::Until::room) return false;
    const auto space = measure_disk(options_.folders.snapshots());
    return space && space->free >= slot.no_image->free_needed &&
           disk_budget(disk_budget_, *space, images_bytes()) >= slot.no_image->bytes;
}

Pool::DiskUse Pool::disk_use() {
    auto use = std::make_shared<DiskUse>();
    (void)run_on_loop([this, use](auto done) {
        use->used = images_bytes();
        use->is_budget_said = disk_budget_.has_value();
        if (const auto space = measure_disk(options_.folders.snapshots())) {
            use->free = space->free;
            use->budget = disk_budget(disk_budget_, *space, use->used);
        }
        for (const SlotPtr& slot : all_slots()) {
            if (slot->snapshot) use->needed_max = std::max(use->needed_max, slot->snapshot->bytes);
            if (slot->no_image) use->needed_max = std::max({use->needed_max, slot->no_image->bytes, slot->no_image->free_needed});
        }
        done({});
    });
    return *use;
}

}  // namespace torpor::gpu
