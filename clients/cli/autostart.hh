// Finding the daemon, or starting it.
#pragma once

#include "base/error.hh"
#include "base/folders.hh"

namespace torpor::cli {

// Whether somebody accepts connections on torpor.sock.
bool is_running(const Folders& folders);

// Returns once torpord accepts connections, started by us or by another `torpor` that does the same now: a
// lock in the runtime folder lets one of them start it. Errors: no_daemon, with torpord's own words.
Result<void> ensure_running(const Folders& folders);

}  // namespace torpor::cli
