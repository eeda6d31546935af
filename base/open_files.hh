// How many descriptors this process may have open (RLIMIT_NOFILE).
#pragma once

#include <cstdint>

namespace torpor {

// Raises our soft limit to the hard one: a shell's or service manager's 1024 is for programs that use select().
// Once, at the start, before there are threads.
void raise_open_files();

// What we may open now, and what we were started with: children are given that back, since some misbehave otherwise.
uint64_t open_files_max();
uint64_t open_files_at_start();

}  // namespace torpor
