// Files in /dev/shm that an image refers to by name: shared memory, and semaphores that were unlinked while in use, to
// which CRIU gives a name for the time of the dump (--link-remap). Both are gone sooner than the image: the names at
// the end of a dump that leaves the process running and at each thaw, all of it at a reboot. So they are copied into
// the image at CRIU's `post-dump`, the last moment at which all exist, and laid out again before each thaw.
//
// In the image: shm-NAME, with the mode that it had.
#pragma once

#include "base/error.hh"

#include <sys/types.h>

#include <filesystem>
#include <string>
#include <vector>

namespace torpor::gpu {

// Copies what the process `leader` and its descendants have open or mapped. Called by torpor-criu-hook.
Result<void> keep_shared_files(pid_t leader, const std::filesystem::path& image);

// Puts them back; fails with `conflict`, and leaves nothing behind, where a file of that name is there already.
Result<void> lay_out_shared_files(const std::filesystem::path& image);

// Their names.
std::vector<std::string> shared_files_in(const std::filesystem::path& image);

// Removes what was laid out, or what the engine that was imaged left behind when it was killed; not what some process
// has in use. Looks at all processes if there is anything to remove: milliseconds.
void remove_shared_files(const std::filesystem::path& image);
void remove_shared_files(const std::vector<std::string>& names);

}  // namespace torpor::gpu
