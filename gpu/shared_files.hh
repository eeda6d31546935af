// Files in /dev/shm that an image refers to by name: shared memory, and semaphores that were unlinked while in use, to
// which CRIU gives a name for the time of the dump (--link-remap). Both are gone sooner than the image: the names at
// the end of a dump that leaves the process running and at each thaw, all of it at a reboot. So they are copied into
// the image at CRIU's `post-dump`, the last moment at which all exist, and laid out again before each thaw.
//
// In the image: shm-NAME, with the mode that it had.
#pragma once

#include "base/error.hh"

#include <sys/types.h>

#include <chrono>
#include <filesystem>
#include <string>
#include <vector>

namespace torpor::gpu {

// Names the image for torpor-criu-hook. (CRIU's own CRTOOLS_IMAGE_DIR leads through /proc/PID/fd of a criu that may have
// more rights than the hook, which is then not let through.)
inline constexpr const char* image_variable = "TORPOR_IMAGE";

// Copies what the process `leader` and its descendants have open or mapped. Called by torpor-criu-hook.
Result<void> keep_shared_files(pid_t leader, const std::filesystem::path& image);

// Puts them back; fails with `conflict`, and leaves nothing behind, where a file of that name is there already.
Result<void> lay_out_shared_files(const std::filesystem::path& image);

// Their names.
std::vector<std::string> shared_files_in(const std::filesystem::path& image);

// Removes what was laid out, or what the engine that was imaged left behind when it was killed; not what some process
// has in use. Looks at all processes if there is anything to remove: milliseconds.
void remove_shared_files(const std::filesystem::path& image);

// Names of the files in /dev/shm that these processes have open or mapped and that are not older than `since`: made by
// them, or for them. Nobody removes them when the processes are killed. Milliseconds, if there is any file at all.
std::vector<std::string> shared_files_of(const std::vector<pid_t>& pids, std::chrono::system_clock::time_point since);

// Removes those of them that no process has in use.
void remove_shared_files(const std::vector<std::string>& names);

}  // namespace torpor::gpu
