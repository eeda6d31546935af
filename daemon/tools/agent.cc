#include "base/text.hh"
#include "daemon/tools/input.hh"
#include "daemon/tools/limits.hh"
#include "daemon/tools/table.hh"

#include <algorithm>
#include <array>

namespace torpor::tools {

namespace {

using agent::ChildSession;
using agent::Mode;
using agent::ToolContext;
using agent::ToolUse;
using simdjson::dom::object;

struct AgentKind {
    std::string_view name;
    Mode mode_most;                 // and never more than the caller's
    std::string_view instructions;
};

constexpr std::array<AgentKind, 2> kinds{
    AgentKind{"general", Mode::danger_full_access, "Do the task below, and nothing else."},
    AgentKind{"explore", Mode::read_only, "Find out what is asked below. Change nothing."},
};

Result<AgentKind> kind_of(const object& input) {
    const std::string name = text_of(input, "subagent_type");
    if (name.empty()) return kinds[0];
    const auto found = std::ranges::find(kinds, name, &AgentKind::name);
    if (found != kinds.end()) return *found;
    std::vector<std::string> names;
    for (const AgentKind& kind : kinds) names.emplace_back(kind.name);
    return fail(Kind::invalid, "there is no kind of agent '{}'{}; there are {}", name.substr(0, 64), did_you_mean(name, names), fmt::join(names, ", "));
}

std::string title_of(const object& input) {
    const std::string name = text_of(input, "name"), description = text_of(input, "description");
    return name.empty() ? description : fmt::format("{}: {}", name, description);
}

// It asks nobody by itself: the session that it begins may do no more than its caller, and asks as that one does.
Result<ToolUse> look(const object& input, const ToolContext&) {
    if (auto kind = kind_of(input); !kind) return Failure(kind.error());
    if (text_of(input, "prompt").size() > agent_prompt_bytes_max) return fail(Kind::invalid, "'prompt' is longer than {} bytes", agent_prompt_bytes_max);
    ToolUse use;
    use.title = "agent: " + title_of(input);
    use.detail = text_of(input, "prompt");
    return use;
}

Result<ChildSession> begin(const object& input, const ToolContext& context) {
    auto kind = kind_of(input);
    if (!kind) return Failure(kind.error());
    ChildSession child;
    child.title = title_of(input);
    child.model = text_of(input, "model");
    child.mode = std::min(kind->mode_most, context.mode);
    child.prompt = fmt::format("You work for another agent, which reads only your last message: put your whole result there. {}\n\n{}",
                               kind->instructions, text_of(input, "prompt"));
    return child;
}

}  // namespace

const agent::Tool agent_tool{
    .name = agent::agent_name,
    .description = "Has another agent do a task in a session of its own, with no more rights than yours. It knows nothing of this conversation but "
                   "`prompt`. Several in one message work side by side. Its last message is the result.",
    .schema = R"({"type":"object","properties":{
"description":{"type":"string","minLength":1,"description":"the task in a few words"},
"prompt":{"type":"string","minLength":1,"description":"the whole task, with all that must be known"},
"subagent_type":{"type":"string","description":"general (the default), or explore, which only reads"},
"name":{"type":"string"},
"model":{"type":"string","description":"another model than yours"}},
"required":["description","prompt"],"additionalProperties":false})",
    .level = Mode::danger_full_access,
    .look = look,
    .run = nullptr,
    .begin = begin,
};

}  // namespace torpor::tools
