#include "daemon/failed_keys.hh"

#include "base/log.hh"
#include "daemon/limits.hh"

#include <algorithm>
#include <bit>

namespace torpor {

namespace {

// After this many wrong ones.
std::chrono::seconds pause_after(uint64_t count) {
    if (count < failed_keys_free) return std::chrono::seconds(0);
    constexpr uint64_t doublings_max = 16;  // far over the longest pause, far from an overflow
    const uint64_t doublings = count <= failed_keys_free ? 0 : std::min(count - failed_keys_free - 1, doublings_max);
    return std::min<std::chrono::seconds>(failed_key_pause_first * (1LL << doublings), failed_key_pause_max);
}

}  // namespace

Error FailedKeys::refuse(const std::string& address, std::string_view route, Clock::time_point now) {
    std::unique_lock lock(mutex_);
    ++total_;
    if (!senders_.contains(address)) make_room(now);
    Sender& sender = senders_[address];
    if (now - sender.last > failed_key_memory) sender = {};
    const bool is_early = now < sender.wait_until;
    const uint64_t count = ++sender.count;
    const auto pause = pause_after(count);
    sender.last = now;
    sender.wait_until = now + pause;
    const bool logs = std::has_single_bit(count) && may_log(now);  // the first, then ever more rarely
    lock.unlock();

    if (logs) log::warning("a wrong key from {} for {}: {} in a row from there", address, route, count);
    if (!is_early) return {Kind::unauthorized, "this key is not known; torpor key ls lists the keys there are", {}};
    return {Kind::busy,
            fmt::format("this key is not known, nor were those before it from {}; try another one in {} s", address, pause.count()),
            {}, "failed_keys", static_cast<int>(pause.count())};
}

void FailedKeys::make_room(Clock::time_point now) {
    if (senders_.size() < failed_key_addresses_max) return;
    std::erase_if(senders_, [&](const auto& entry) { return now - entry.second.last > failed_key_memory; });
    if (senders_.size() < failed_key_addresses_max) return;
    senders_.erase(std::ranges::min_element(senders_, {}, [](const auto& entry) { return entry.second.last; }));
}

bool FailedKeys::may_log(Clock::time_point now) {
    if (now - minute_ >= std::chrono::minutes(1)) {
        minute_ = now;
        lines_ = 0;
    }
    return ++lines_ <= failed_key_lines_per_minute_max;
}

uint64_t FailedKeys::total() const {
    std::lock_guard lock(mutex_);
    return total_;
}

size_t FailedKeys::addresses() const {
    std::lock_guard lock(mutex_);
    return senders_.size();
}

}  // namespace torpor
