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
    std::vector<std::filesystem::path> hidden;       // the daemon's own folders: refused whatever the mode
    bool may_leave_folder = false;                   // this call was allowed to touch what lies outside of `folder`
};

struct ToolResult {
    std::string output;         // for the model; at most output_bytes_max (daemon/tools/limits.hh)
    bool failed = false;        // the model is told, and may try something else
    bool is_cut_short = false;  // it was stopped before its end; what it did until then is in `output`
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
    bool leaves_folder = false;     // touches what lies outside of the session's folder
    bool is_command = false;        // the subjects are command lines, not paths: prefixes end at a word's end
    bool is_opaque = false;         // and could not be taken apart: no rule with a prefix allows it
    bool only_reads = false;        // may run beside others that only read
};

// A session of its own that a call begins. What it says last is the call's result.
struct ChildSession {
    std::string title;
    std::string prompt;
    std::string model = {};         // empty: the caller's
    Mode mode = Mode::read_only;    // at most the caller's
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
    // In place of `run`, for a call that begins a session; an Error is told to the model.
    Result<ChildSession> (*begin)(const simdjson::dom::object& input, const ToolContext& context) = nullptr;
};

// Offered only where a prompt came with a schema, and then with that one.
inline constexpr std::string_view structured_output_name = "StructuredOutput";

// Not offered to sessions that were begun by it.
inline constexpr std::string_view agent_name = "Agent";

std::span<const Tool> tools();
const Tool* find_tool(std::string_view name);

}  // namespace torpor::agent
