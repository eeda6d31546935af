// One daemon a folder: SQLite's log can be damaged by two programs that write, so the second is refused.
#pragma once

#include "base/error.hh"
#include "base/fd.hh"

#include <filesystem>
#include <string_view>

namespace torpor::store {

// Held as long as it lives, and let go by the system if the process dies. The file stays: were it unlinked,
// two processes could each hold a lock on a file of that name.
class FolderLock {
  public:
    // Locks `<folder>/torpor.lock` and writes our pid into it. `conflict`, naming the pid, if another
    // process (or this one) holds it. Waits only for a holder that is about to end, lock_handover_max at most.
    static Result<FolderLock> take(const std::filesystem::path& folder);

    FolderLock(FolderLock&&) = default;
    FolderLock& operator=(FolderLock&&) = default;
    ~FolderLock();

  private:
    explicit FolderLock(Fd fd) : fd_(std::move(fd)) {}

    Fd fd_;
};

// The name of the network filesystem with this statfs type; empty if it is none that we know.
std::string_view network_filesystem(unsigned long type);

// `refused` if the folder is on a network filesystem, where neither flock nor SQLite's shared memory holds.
Result<void> check_local_disk(const std::filesystem::path& folder);

}  // namespace torpor::store
