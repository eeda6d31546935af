#include "gpu/room.hh"

#include "base/fd.hh"

#include <sys/sysinfo.h>

#include <algorithm>
#include <charconv>
#include <filesystem>

namespace torpor::gpu {

namespace {

// Found by trying on the simulated loads; without the difference between a conversation's pauses and the gaps between
// conversations there are a sixth more wake-ups.
constexpr double pause_max_s = 30;   // a longer gap is one between conversations
constexpr double gap_weight = 0.3;   // of the newest gap or pause in its mean
constexpr double first_gap_s = 600;  // of a model that had no second conversation yet
constexpr double shortest_s = 0.001;

}  // namespace

void Demand::note(Clock::time_point now) {
    if (last_) {
        const double gap_s = std::chrono::duration<double>(now - *last_).count();
        if (gap_s > pause_max_s) {
            gap_s_ = gap_s_ ? *gap_s_ + gap_weight * (gap_s - *gap_s_) : gap_s;
        } else {
            pause_s_ += gap_weight * (gap_s - pause_s_);
        }
    }
    last_ = now;
}

std::chrono::duration<double> Demand::next(Clock::time_point now) const {
    const double since_s = last_ ? std::chrono::duration<double>(now - *last_).count() : first_gap_s;
    return std::chrono::duration<double>(since_s + (since_s < pause_max_s ? pause_s_ : gap_s_.value_or(first_gap_s)));
}

double loss_of(std::chrono::milliseconds wake, std::chrono::duration<double> next, uint64_t bytes) {
    constexpr double gigabyte = 1e9;
    const double wake_s = std::max(1.0, static_cast<double>(wake.count())) / 1000;
    return wake_s / std::max(shortest_s, next.count()) / (static_cast<double>(std::max<uint64_t>(1, bytes)) / gigabyte);
}

void Room::ask(const std::string& model, uint64_t bytes, Clock::time_point now) {
    if (is_in_line(model) || occupied_.contains(model)) return;
    line_.push_back({model, bytes, now});
}

void Room::leave_line(const std::string& model) {
    std::erase_if(line_, [&](const Waiting& waiting) { return waiting.model == model; });
}

bool Room::is_in_line(const std::string& model) const {
    return std::ranges::any_of(line_, [&](const Waiting& waiting) { return waiting.model == model; });
}

std::vector<std::string> Room::line() const {
    std::vector<std::string> models;
    for (const Waiting& waiting : line_) models.push_back(waiting.model);
    return models;
}

void Room::set(const std::string& model, uint64_t bytes) {
    uint64_t& now = occupied_[model];
    taken_ += bytes - now;
    now = bytes;
}

uint64_t Room::taken_by(const std::string& model) const {
    const auto found = occupied_.find(model);
    return found == occupied_.end() ? 0 : found->second;
}

void Room::give_back(const std::string& model) {
    taken_ -= taken_by(model);
    occupied_.erase(model);
}

uint64_t Room::most_for(const std::vector<Occupant>& occupants) const {
    uint64_t pinned = 0;
    for (const Occupant& occupant : occupants) {
        if (occupant.use == Use::pinned) pinned += taken_by(occupant.model);
    }
    return !budget_ ? UINT64_MAX : *budget_ > pinned ? *budget_ - pinned : 0;
}

// Adds those of this use whose loss hurts least, until nothing is lacking; then lets stay whom the others made
// needless, dearest first: the last one chosen is often larger than those before it together.
void Room::choose(const std::vector<Occupant>& occupants, Use use, uint64_t& lacking, std::vector<std::string>& leave) const {
    std::vector<const Occupant*> candidates;
    for (const Occupant& occupant : occupants) {
        if (occupant.use == use && taken_by(occupant.model) > 0) candidates.push_back(&occupant);
    }
    std::ranges::sort(candidates, {}, &Occupant::loss);
    std::vector<const Occupant*> chosen;
    uint64_t freed = 0;
    for (const Occupant* candidate : candidates) {
        if (freed >= lacking) break;
        freed += taken_by(candidate->model);
        chosen.push_back(candidate);
    }
    for (size_t i = chosen.size(); i-- > 0;) {
        const uint64_t bytes = taken_by(chosen[i]->model);
        if (freed < lacking || freed - lacking < bytes) continue;
        freed -= bytes;
        chosen.erase(chosen.begin() + static_cast<std::ptrdiff_t>(i));
    }
    for (const Occupant* occupant : chosen) leave.push_back(occupant->model);
    lacking -= std::min(lacking, freed);
}

Room::Plan Room::plan(const std::vector<Occupant>& occupants, Clock::time_point now) {
    Plan plan;
    while (!line_.empty()) {
        const Waiting& first = line_.front();
        if (budget_ && first.bytes > most_for(occupants)) {
            plan.hopeless.push_back(first.model);
        } else if (!budget_ || first.bytes <= free()) {
            plan.enter.push_back(first.model);
            set(first.model, first.bytes);
        } else {
            break;
        }
        line_.pop_front();
    }
    if (!budget_) return plan;
    uint64_t on_its_way = 0;
    for (const Occupant& occupant : occupants) {
        if (occupant.use == Use::leaving) on_its_way += taken_by(occupant.model);
    }
    const uint64_t wanted = taken_ + (line_.empty() ? 0 : line_.front().bytes);
    const uint64_t there = *budget_ + on_its_way;
    uint64_t lacking = wanted > there ? wanted - there : 0;
    if (lacking == 0) return plan;
    choose(occupants, Use::idle, lacking, plan.leave);
    if (lacking == 0 || line_.empty()) return plan;
    // Idle ones alone do not make room. They stay until busy ones must go, too: they may be wanted until then.
    const auto patience_ends = line_.front().since + room_patience;
    if (now < patience_ends) {
        plan.look_again = patience_ends;
        if (taken_ <= *budget_) plan.leave.clear();
    } else {
        choose(occupants, Use::busy, lacking, plan.leave);
    }
    return plan;
}

namespace {

// The number in this file; nothing if there is none ("max"), or no file.
std::optional<uint64_t> number_of_file(const std::filesystem::path& file) {
    const auto text = read_file(file, 64);
    uint64_t number = 0;
    if (!text || std::from_chars(text->data(), text->data() + text->size(), number).ec != std::errc{}) return {};
    return number;
}

// The least limit of the cgroups that this process is in: version 2 at "0::/path", version 1 at "N:memory:/path".
std::optional<uint64_t> cgroup_limit() {
    std::optional<uint64_t> least;
    const std::string memberships = read_file("/proc/self/cgroup", 64 * 1024).value_or("");
    for (size_t at = 0; at < memberships.size();) {
        const size_t end = std::min(memberships.find('\n', at), memberships.size());
        const std::string line = memberships.substr(at, end - at);
        at = end + 1;
        const size_t path_at = line.find(":/");
        if (path_at == std::string::npos) continue;
        const bool is_unified = line.starts_with("0::");
        if (!is_unified && line.find(":memory:") == std::string::npos) continue;
        const std::filesystem::path root = is_unified ? "/sys/fs/cgroup" : "/sys/fs/cgroup/memory";
        for (std::filesystem::path below = line.substr(path_at + 2);; below = below.parent_path()) {
            const auto limit = number_of_file(root / below / (is_unified ? "memory.max" : "memory.limit_in_bytes"));
            if (limit) least = std::min(*limit, least.value_or(*limit));
            if (below.empty()) break;
        }
    }
    return least;
}

}  // namespace

uint64_t automatic_memory_budget() {
    struct sysinfo info{};
    ::sysinfo(&info);
    const uint64_t all = static_cast<uint64_t>(info.totalram) * info.mem_unit;
    return std::min(all, cgroup_limit().value_or(all)) / 5 * 4;
}

}  // namespace torpor::gpu
