// Whether a process is a worker of ours, shown by what no other program has by chance. All of it is read from
// /proc (proc(5)) and costs some microseconds a process.
#pragma once

#include "gpu/engine.hh"

#include <sys/types.h>

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace torpor::gpu {

// A random value in the environment of every worker; its children inherit it.
inline constexpr std::string_view token_variable = "TORPOR_WORKER_TOKEN";

// 32 random hex digits.
std::string random_token();

// The token of a process; empty if it has none, or if we may not look.
std::string token_of(pid_t pid);

// Whether one of these processes is the one that listens there. False also where nobody does.
bool is_listener(const Endpoint& endpoint, const std::vector<pid_t>& pids);

// Whether the process writes to a file in this folder, as every worker does to its log.
bool writes_into(pid_t pid, const std::filesystem::path& folder);

// Processes of this CRIU at work on an image below `folder`, and those that a thaw has begun to make: they have criu's
// command line for a while, then none, and are criu's program until they have their own environment. `pids`: those
// that thaws of ours give to their first process.
std::vector<pid_t> criu_at_work(const std::string& criu, const std::filesystem::path& folder, const std::vector<pid_t>& pids);

}  // namespace torpor::gpu
