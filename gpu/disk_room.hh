// How much of the disk all images together may take, and which of them go when another needs room. Numbers only:
// pool_disk.cc gathers them and does what is chosen.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace torpor::gpu {

struct DiskSpace {
    uint64_t total = 0;  // of the file system
    uint64_t free = 0;   // of it, for us
};

// Of the file system that `folder` is on (statvfs(3)); nothing if it cannot be told.
std::optional<DiskSpace> measure_disk(const std::filesystem::path& folder);

// What all images together may take: `said`, or with nothing said as much as leaves disk_left_share of the file system
// free, at most disk_left_max. `used`: what images take of it now.
uint64_t disk_budget(std::optional<uint64_t> said, const DiskSpace& space, uint64_t used);

struct DiskImage {
    std::string model;
    uint64_t bytes = 0;
    double saved_s = 0;     // by a thaw, against a cold start
    double next_use_s = 0;  // from now, as guess_next_use() has it
    bool is_pinned = false;
};

// In how many seconds a model is wanted again, by guess: not before as much time has passed as lay between two of its
// starts so far, nor sooner than it has been unused already. `known_s`: since its first start.
double guess_next_use(double known_s, uint64_t starts, double unused_s);

struct DiskChoice {
    bool fits = false;                // false: not even with all of them gone, so none is to go
    std::vector<std::string> to_go;   // models, the least valuable first
};

// Makes room for `needed` bytes besides these images within `limit`. An image is worth the time that it saves, the
// sooner it is wanted the more, for each byte; those of pinned models go last.
DiskChoice choose_for_disk(uint64_t needed, uint64_t limit, std::vector<DiskImage> images);

}  // namespace torpor::gpu
