#include "base/json.hh"
#include "base/text.hh"
#include "daemon/tools/command.hh"
#include "daemon/tools/cut.hh"
#include "daemon/tools/input.hh"
#include "daemon/tools/limits.hh"
#include "daemon/tools/table.hh"

#include <algorithm>

namespace torpor::tools {

namespace {

using agent::Mode;
using agent::ToolContext;
using agent::ToolResult;
using agent::ToolUse;
using simdjson::dom::object;

// A command and its words, with nothing that a shell would read otherwise. Where it is, the line is its own only segment.
bool is_plain(std::string_view line) {
    constexpr std::string_view others = " -_./:,@%+=";
    if (line.empty() || line.front() == ' ') return false;
    // "NAME=value command" sets a variable.
    const std::string_view first = line.substr(0, line.find(' '));
    if (first.find('=') != std::string_view::npos) return false;
    return std::ranges::all_of(line, [&](char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || others.find(c) != std::string_view::npos;
    });
}

Result<ToolUse> look(const object& input, const ToolContext&) {
    const std::string line = text_of(input, "command");
    if (line.size() > bash_command_bytes_max) {
        return fail(Kind::invalid, "'command' is longer than {} bytes; write it to a file with write_file and run that", bash_command_bytes_max);
    }
    if (line.find('\0') != std::string::npos) return fail(Kind::invalid, "'command' has a character that no command can have (NUL)");
    const std::string described = text_of(input, "description");
    const std::string first_line = line.substr(0, line.find('\n'));
    ToolUse use;
    use.title = described.empty() ? cut_middle(first_line, 200) : cut_middle(described, 200);
    use.detail = line;
    use.subjects = {line};
    use.needs = Mode::danger_full_access;
    use.is_command = true;
    use.is_opaque = !is_plain(line);
    return use;
}

std::string why_failed(const CommandEnd& end, std::chrono::milliseconds time) {
    switch (end.why) {
        case CommandEnd::Why::timed_out:
            return fmt::format("[it was ended after its time-out of {}; `timeout` (ms) gives it more]", format_duration(time));
        case CommandEnd::Why::stopped: return "[it was interrupted; it and what it started were ended]";
        case CommandEnd::Why::ended: break;
    }
    return end.ending.is_success() ? "" : fmt::format("[it {}]", end.ending.text());
}

std::string detail_of(const CommandEnd& end) {
    JsonWriter json;
    json.begin_object();
    if (end.why == CommandEnd::Why::ended && end.ending.signal == 0) json.member("exit_status", end.ending.code);
    if (end.why == CommandEnd::Why::ended && end.ending.signal != 0) json.member("signal", end.ending.signal);
    if (end.why == CommandEnd::Why::timed_out) json.member("timed_out", true);
    if (end.why == CommandEnd::Why::stopped) json.member("interrupted", true);
    return json.end_object().take();
}

Result<ToolResult> run(const object& input, const ToolContext& context) {
    constexpr auto time_max = std::chrono::milliseconds(bash_time_max).count();
    constexpr auto time_default = std::chrono::milliseconds(bash_time_default).count();
    Keeper kept(whole_bytes_max);
    Command command;
    command.line = text_of(input, "command");
    command.folder = context.folder;
    command.environment = context.environment;
    command.time = std::chrono::milliseconds(std::min<uint64_t>(number_of(input, "timeout", time_default), time_max));
    command.stop = context.stop;
    std::string open;  // with the first bytes of a character whose last are to come
    command.output = [&](std::string_view piece) {
        kept.add(piece);
        if (!context.output) return;
        open += piece;
        const size_t whole = whole_characters(open);
        context.output(std::string_view(open).substr(0, whole));
        open.erase(0, whole);
    };
    auto end = run_command(command);
    if (!end) return ToolResult{.output = end.error().text(), .failed = true};

    ToolResult result;
    std::string whole = kept.text();
    result.output = cut_middle(whole, output_bytes_max);
    if (result.output.size() < whole.size()) result.whole = std::move(whole);
    const std::string said = why_failed(*end, command.time);
    if (!said.empty()) result.output += (result.output.empty() || result.output.ends_with('\n') ? "" : "\n") + said;
    if (result.output.empty()) result.output = "(no output)";
    result.failed = !said.empty();
    result.is_cut_short = end->why == CommandEnd::Why::stopped;
    result.detail = detail_of(*end);
    return result;
}

}  // namespace

const agent::Tool bash{
    .name = "bash",
    .description = "Runs a command line in the working directory. It reads from nothing; what it leaves in the background ends with it.",
    .schema = R"({"type":"object","properties":{
"command":{"type":"string","minLength":1},
"timeout":{"type":"integer","minimum":1,"description":"milliseconds; 2 minutes unless given, at most 60"},
"description":{"type":"string","description":"what it does, in a few words"}},
"required":["command"],"additionalProperties":false})",
    .level = Mode::danger_full_access,
    .look = look,
    .run = run,
};

}  // namespace torpor::tools
