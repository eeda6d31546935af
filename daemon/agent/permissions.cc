#include "daemon/agent/permissions.hh"

#include <algorithm>

namespace torpor::agent {

namespace {

struct Rule {
    std::string_view tool;
    enum class Form { any, exact, prefix } form = Form::any;
    std::string_view text = {};
};

std::optional<Rule> parse_rule(std::string_view text) {
    const size_t open = text.find('(');
    if (open == std::string_view::npos) return text.empty() ? std::nullopt : std::optional(Rule{text, Rule::Form::any, {}});
    if (open == 0 || !text.ends_with(')')) return {};
    const std::string_view inner = text.substr(open + 1, text.size() - open - 2);
    constexpr std::string_view any_end = ":*";
    if (inner.ends_with(any_end)) {
        const std::string_view prefix = inner.substr(0, inner.size() - any_end.size());
        return prefix.empty() ? Rule{text.substr(0, open), Rule::Form::any, {}} : Rule{text.substr(0, open), Rule::Form::prefix, prefix};
    }
    if (inner.empty()) return {};
    return Rule{text.substr(0, open), Rule::Form::exact, inner};
}

// "git" is not the beginning of "github", nor "src" of "srcs".
bool begins_with(std::string_view subject, std::string_view prefix, char boundary) {
    if (!subject.starts_with(prefix)) return false;
    return subject.size() == prefix.size() || prefix.back() == boundary || subject[prefix.size()] == boundary;
}

bool matches(const Rule& rule, const ToolUse& use, std::string_view subject) {
    switch (rule.form) {
        case Rule::Form::any: return true;
        case Rule::Form::exact: return subject == rule.text;
        case Rule::Form::prefix: return !use.is_opaque && begins_with(subject, rule.text, use.is_command ? ' ' : '/');
    }
    return false;
}

bool matches_any_subject(const Rule& rule, const ToolUse& use) {
    if (rule.form == Rule::Form::any) return true;
    return std::ranges::any_of(use.subjects, [&](const std::string& subject) { return matches(rule, use, subject); });
}

}  // namespace

Judgement judge(std::string_view tool, const ToolUse& use, Mode mode, const std::vector<store::Grant>& grants) {
    std::vector<Rule> allowing;
    bool asks = use.asks_always;
    for (const store::Grant& grant : grants) {
        const auto rule = parse_rule(grant.rule);
        if (!rule || rule->tool != tool) continue;
        if (grant.decision == "allow") {
            allowing.push_back(*rule);
            continue;
        }
        const bool is_met = matches_any_subject(*rule, use);
        if (is_met && grant.decision == "deny") return {Verdict::deny, fmt::format("the rule {} forbids it", grant.rule)};
        // What could not be taken apart may hold what is forbidden.
        if (is_met || (use.is_opaque && rule->form == Rule::Form::prefix)) asks = true;
    }
    if (asks) return {Verdict::ask};
    if (use.needs <= mode) return {Verdict::run};
    const auto is_allowed = [&](const std::string& subject) {
        return std::ranges::any_of(allowing, [&](const Rule& rule) { return matches(rule, use, subject); });
    };
    const bool any_use = std::ranges::any_of(allowing, [](const Rule& rule) { return rule.form == Rule::Form::any; });
    if (any_use || (!use.subjects.empty() && std::ranges::all_of(use.subjects, is_allowed))) return {Verdict::run};
    return {Verdict::ask};
}

std::vector<std::string> rules_for(std::string_view tool, const ToolUse& use) {
    if (use.asks_always) return {};
    std::vector<std::string> rules;
    for (const std::string& subject : use.subjects) {
        if (subject.empty() || subject.ends_with(":*")) return {};  // would be read as another rule
        rules.push_back(fmt::format("{}({})", tool, subject));
    }
    if (use.subjects.empty()) rules.emplace_back(tool);
    return rules;
}

Result<void> check_rule(std::string_view rule) {
    if (parse_rule(rule)) return {};
    return fail(Kind::invalid, "'{}' is not a rule; they are like tool, tool(exact) and tool(prefix:*)", rule.substr(0, 200));
}

}  // namespace torpor::agent
