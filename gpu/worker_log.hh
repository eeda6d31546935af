// What a worker writes: one file, kept below a size by moving it aside, readable while it grows.
#pragma once

#include "base/fd.hh"

#include <filesystem>
#include <string>

namespace torpor::gpu {

// Opens (or makes, 0600) the file for appending.
Result<Fd> open_worker_log(const std::filesystem::path& path);

// When it has outgrown worker_log_bytes_max: copies it to PATH.1 and empties it. The worker goes on
// writing to the same file, since it was opened for appending.
void rotate_worker_log(const std::filesystem::path& path);

// The last lines from `offset` on, for an error message.
std::string last_words(const std::filesystem::path& path, uint64_t offset);

uint64_t size_of(const std::filesystem::path& path);

}  // namespace torpor::gpu
