// Tools: what a model may call. One file each in daemon/tools/, one line each in the table in daemon/tools/table.cc.
#pragma once

#include "base/error.hh"
#include "daemon/agent/mode.hh"

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include <simdjson.h>

namespace torpor::agent {

// What a tool may know of where it runs.
struct ToolContext {
    std::string session;
    std::filesystem::path folder;                    // the session's, absolute
    std::map<std::string, std::string> environment;  // for children: the client's, without keys
    Mode mode = Mode::read_only;
    std::stop_token stop;                            // interrupted: end soon, and say what was done so far
    std::function<void(std::string_view)> output;    // pieces for those who watch, while it runs; any thread
    std::filesystem::path spill;                     // a folder of the session's own for outputs that are too long to show
};

struct ToolResult {
    std::string output;         // for the model; at most tool_output_bytes_max (limits.hh)
    bool failed = false;        // the model is told, and may try something else
    std::string detail = {};    // a JSON object for clients: a diff, an exit status; empty: none
    std::string whole = {};     // all of the output, where `output` is cut; kept by its hash
};

// What a person is asked, and what a rule is compared with.
struct ToolUse {
    std::string title;              // one line: "write notes.txt (3 lines)"
    std::string detail = {};        // what exactly: the command, the diff
    std::vector<std::string> subjects = {};  // what rules are matched with: the path, each segment of a command line
    Mode needs = Mode::read_only;   // the least mode in which nobody need be asked
    bool asks_always = false;       // whatever the mode and the grants say
    bool only_reads = false;        // may run beside others that only read
};

struct Tool {
    std::string_view name;
    std::string_view description;   // for the model
    std::string_view schema;        // JSON Schema of its input; refuses unknown fields
    Mode level;                     // for listings
    // Looks at the input and touches nothing. `invalid` is told to the model: what is wrong with its input.
    Result<ToolUse> (*look)(const simdjson::dom::object& input, const ToolContext& context);
    // Does it. A failure of the tool is a ToolResult; an Error is a failure of Torpor's.
    Result<ToolResult> (*run)(const simdjson::dom::object& input, const ToolContext& context);
};

std::span<const Tool> tools();
const Tool* find_tool(std::string_view name);

}  // namespace torpor::agent
