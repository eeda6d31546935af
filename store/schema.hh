// The tables, and how an older file becomes one of this version.
#pragma once

#include "base/error.hh"
#include "store/database.hh"

#include <cstdint>
#include <filesystem>
#include <span>

namespace torpor::store {

// "Torp" in the file's header: what tells our file from any other SQLite file.
inline constexpr int64_t application_id = 0x546f7270;

// The n-th entry (from 1) takes a file of version n-1 to version n.
using Migrations = std::span<const char* const>;
Migrations migrations();

// Brings `file`, open as `writer`, to the newest version of `list`, in one transaction. An older version is
// first copied to `<file>.backup-vN` (0600, on disk before anything changes). On an error the file is as it
// was. `conflict`, and nothing written, if it is no file of ours or of a newer version.
Result<void> migrate(Connection& writer, const std::filesystem::path& file, Migrations list);

// Where the copy of version `version` lies.
std::filesystem::path backup_of(const std::filesystem::path& file, int64_t version);

}  // namespace torpor::store
