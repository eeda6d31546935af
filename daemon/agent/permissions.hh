// Whether a tool may run: by the session's mode, the rules that people gave, or by asking.
//
// Rules are "tool", "tool(exact)" and "tool(prefix:*)", each to allow, ask or deny. deny wins, then what always asks, then
// ask; then the mode decides, then allow. What none of them lets through is asked.
#pragma once

#include "daemon/agent/mode.hh"
#include "daemon/agent/tool.hh"
#include "store/sessions.hh"

#include <string>
#include <string_view>
#include <vector>

namespace torpor::agent {

enum class Verdict { run, ask, deny };

struct Judgement {
    Verdict verdict = Verdict::ask;
    std::string why = {};  // of deny: the rule, for the model and people
};

// `grants`: of the session's folder, and those of this session only.
Judgement judge(std::string_view tool, const ToolUse& use, Mode mode, const std::vector<store::Grant>& grants);

// The rules that would have let this use through: what `session` and `always` give. Empty where nothing can.
std::vector<std::string> rules_for(std::string_view tool, const ToolUse& use);

// `invalid` unless it has one of the three forms.
Result<void> check_rule(std::string_view rule);

}  // namespace torpor::agent
