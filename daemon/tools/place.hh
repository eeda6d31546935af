// Where a path that a model gave leads, and opening it so that it cannot lead elsewhere by then.
#pragma once

#include "base/error.hh"
#include "base/fd.hh"
#include "daemon/agent/tool.hh"

#include <sys/types.h>

#include <filesystem>
#include <string>
#include <string_view>

namespace torpor::tools {

struct Place {
    std::filesystem::path root;    // the session's folder, without links
    std::filesystem::path real;    // absolute, all links followed as far as it exists
    bool is_inside = false;        // of root
    std::string shown;             // relative to root where it is inside, else absolute; what rules are matched with
};

// Relative paths begin at the session's folder; "~/" is the home folder of its environment. Errors: `invalid` for no path;
// `refused` for what no tool may touch: the daemon's own folders, and the environments of processes.
Result<Place> locate(std::string_view path, const agent::ToolContext& context);

// Whether a write there can change what is run or allowed: .torpor, .mcp.json, .claude, .git (hooks, config, or another
// repository in its place).
bool is_guarded(const Place& place);

// As open(2), with O_CLOEXEC. A file that came to lie outside of the folder by a link that was made meanwhile is not opened.
// Errors: `refused` where the place is outside and the call may not leave the folder; `not_found`, with the nearest name;
// else `invalid`.
Result<Fd> open_at(const Place& place, const agent::ToolContext& context, int flags, mode_t mode = 0);

// The folder that the place is in, made with its parents where it is missing.
Result<Fd> open_parent(const Place& place, const agent::ToolContext& context);

}  // namespace torpor::tools
