#include "gpu/disk_room.hh"

#include "gpu/limits.hh"

#include <sys/statvfs.h>

#include <algorithm>
#include <numeric>

namespace torpor::gpu {

std::optional<DiskSpace> measure_disk(const std::filesystem::path& folder) {
    struct statvfs info{};
    if (::statvfs(folder.c_str(), &info) != 0) return {};
    return DiskSpace{info.f_blocks * info.f_frsize, info.f_bavail * info.f_frsize};
}

uint64_t disk_budget(std::optional<uint64_t> said, const DiskSpace& space, uint64_t used) {
    if (said) return *said;
    const uint64_t left = std::min(space.total / disk_left_share, disk_left_max);
    return space.free + used > left ? space.free + used - left : 0;
}

double guess_next_use(double known_s, uint64_t starts, double unused_s) {
    const double between_s = known_s / static_cast<double>(std::max<uint64_t>(starts, 1));
    return std::max({between_s, unused_s, 1.0});
}

DiskChoice choose_for_disk(uint64_t needed, uint64_t limit, std::vector<DiskImage> images) {
    const auto value = [](const DiskImage& image) {
        return image.saved_s / image.next_use_s / static_cast<double>(std::max<uint64_t>(image.bytes, 1));
    };
    std::ranges::sort(images, [&](const DiskImage& a, const DiskImage& b) {
        if (a.is_pinned != b.is_pinned) return b.is_pinned;
        return value(a) < value(b);
    });
    uint64_t used = std::accumulate(images.begin(), images.end(), uint64_t{0},
                                    [](uint64_t sum, const DiskImage& image) { return sum + image.bytes; });
    if (needed > limit) return {};
    DiskChoice choice{true, {}};
    for (const DiskImage& image : images) {
        if (used + needed <= limit) break;
        used -= image.bytes;
        choice.to_go.push_back(image.model);
    }
    return choice;
}

}  // namespace torpor::gpu
