// A shell's command line, run to its end with all that it started. Blocks; any thread but the loop's.
#pragma once

#include "base/error.hh"
#include "base/process.hh"

#include <chrono>
#include <filesystem>
#include <functional>
#include <map>
#include <stop_token>
#include <string>
#include <string_view>

namespace torpor::tools {

struct Command {
    std::string line;                                // for bash -c, or sh -c where there is no bash
    std::filesystem::path folder;
    std::map<std::string, std::string> environment;  // it gets these and nothing else
    std::chrono::milliseconds time{0};
    std::stop_token stop;
    std::function<void(std::string_view)> output;    // both streams, as they come
};

struct CommandEnd {
    enum class Why { ended, timed_out, stopped } why = Why::ended;
    Ending ending;
};

// In a session and process group of its own, reading from nothing. When the shell ends, when its time is over or `stop` is
// requested, all that is left of that session is killed; and if this daemon is killed, so is the shell.
Result<CommandEnd> run_command(const Command& command);

}  // namespace torpor::tools
