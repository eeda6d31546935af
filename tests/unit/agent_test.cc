#include "daemon/agent/context.hh"
#include "daemon/agent/environment.hh"
#include "daemon/agent/permissions.hh"
#include "daemon/agent/progress.hh"
#include "daemon/agent/system_prompt.hh"

#include "base/fd.hh"
#include "temporary_folder.hh"

#include <doctest/doctest.h>

using namespace torpor;
using namespace torpor::agent;

namespace {

// A session's log, written by hand.
struct Log {
    std::vector<store::Event> events;
    int64_t add(const std::string& kind, const std::string& body) {
        events.push_back({static_cast<int64_t>(events.size()) + 1, kind, body, 0});
        return events.back().seq;
    }
    Progress progress() const {
        Progress progress;
        for (const auto& event : events) progress.add(event);
        return progress;
    }
    // "user: hello | assistant: call bash {...} | ..."
    std::string messages() const {
        Context context;
        for (const auto& event : events) context.add(event);
        std::string text;
        for (const llm::Message& message : context.messages([](const std::string&) { return fail(Kind::not_found, "no"); })) {
            if (!text.empty()) text += " | ";
            text += message.role == llm::Message::Role::user ? "user:" : "assistant:";
            for (const llm::Block& block : message.blocks) {
                switch (block.kind) {
                    case llm::Block::Kind::tool_call: text += fmt::format(" [{} {} {}]", block.call, block.tool, block.input); break;
                    case llm::Block::Kind::tool_result: text += fmt::format(" ({}{} {})", block.is_error ? "!" : "", block.call, block.text); break;
                    default: text += " " + block.text;
                }
            }
        }
        return text;
    }
};

store::Grant grant(std::string rule, std::string decision) {
    return {.id = 0, .folder = "/p", .rule = std::move(rule), .decision = std::move(decision), .by = "owner", .created_at_ms = 0};
}

}  // namespace

TEST_CASE("messages are made of whole answers and of results in the order of their calls") {
    Log log;
    log.add("created", "{}");
    log.add("prompt", R"({"text":"hello"})");
    CHECK(log.messages() == "");
    log.add("turn_started", R"({"turn":2,"prompt":2})");
    log.add("text", R"({"turn":2,"answer":1,"block":0,"text":"lost"})");
    log.add("text", R"({"turn":2,"answer":2,"block":0,"text":"I look."})");
    log.add("tool_call", R"({"turn":2,"answer":2,"block":1,"call":"a","tool":"bash","input":{"command":"ls"}})");
    log.add("tool_call", R"({"turn":2,"answer":2,"block":2,"call":"b","tool":"bash","input":{}})");
    CHECK(log.messages() == "user: hello");
    log.add("answered", R"({"turn":2,"answer":2,"stop":"tool_calls","told":3})");
    log.add("tool_result", R"({"turn":2,"call":"b","tool":"bash","outcome":"failed","output":"B"})");
    CHECK(log.messages() == R"(user: hello | assistant: I look. [a bash {"command":"ls"}] [b bash {}] | user: (!a What this call did is not known.) (!b B))");
    log.add("tool_result", R"({"turn":2,"call":"a","tool":"bash","outcome":"done","output":"A"})");
    log.add("steered", R"({"turn":2,"text":"hurry"})");
    CHECK(log.messages() == R"(user: hello | assistant: I look. [a bash {"command":"ls"}] [b bash {}] | user: (a A) (!b B) hurry)");
}

TEST_CASE("what was sent once stays as it was: what is said during an answer comes after it") {
    Log log;
    log.add("prompt", R"({"text":"one"})");
    log.add("turn_started", R"({"turn":1,"prompt":1})");
    const std::string sent = log.messages();
    log.add("steered", R"({"turn":1,"text":"meanwhile"})");
    log.add("prompt", R"({"text":"two"})");
    log.add("text", R"({"turn":1,"answer":1,"block":0,"text":"answer"})");
    log.add("answered", R"({"turn":1,"answer":1,"stop":"end","told":2})");
    CHECK(log.messages() == sent + " | assistant: answer | user: meanwhile");
    CHECK(log.progress().turn().needs_answer());
    log.add("answered", R"({"turn":1,"answer":2,"stop":"end","told":6})");  // it had nothing to say
    CHECK(!log.progress().turn().needs_answer());
    log.add("turn_ended", R"({"turn":1,"outcome":"interrupted","can_retry":true})");
    log.add("turn_started", R"({"turn":4,"prompt":4})");
    CHECK(log.messages() == sent + " | assistant: answer | user: meanwhile [The turn before this was interrupted by the user.] two");
}

TEST_CASE("a turn that is tried again keeps its whole answers") {
    Log log;
    log.add("prompt", R"({"text":"one"})");
    log.add("turn_started", R"({"turn":1,"prompt":1})");
    log.add("turn_ended", R"({"turn":1,"outcome":"failed","can_retry":true})");
    log.add("turn_retried", R"({"turn":1})");
    CHECK(log.messages() == "user: one");
    CHECK(log.progress().turn().needs_answer());
    log.add("text", R"({"turn":1,"answer":1,"block":0,"text":"half of"})");
    log.add("answered", R"({"turn":1,"answer":1,"stop":"output_limit","told":4,"usage":{"input":5,"output":2},"cost":0.5})");
    CHECK(log.progress().turn().tokens() == 7);
    log.add("turn_ended", R"({"turn":1,"outcome":"limit","can_retry":true})");
    log.add("turn_retried", R"({"turn":1})");
    CHECK(log.messages() == "user: one | assistant: half of | user: Go on.");
    CHECK(log.progress().turn().tokens() == 0);
}

TEST_CASE("a log tells what waits, what was asked and what was begun") {
    Log log;
    log.add("prompt", "{}");
    log.add("prompt", "{}");
    log.add("prompt", "{}");
    log.add("prompt_withdrawn", R"({"prompt":2})");
    log.add("turn_started", R"({"turn":1,"prompt":1,"system":"hash"})");
    CHECK(log.progress().waiting() == std::deque<int64_t>{3});
    CHECK(log.progress().system_hash() == "hash");
    log.add("tool_call", R"({"turn":1,"answer":1,"block":0,"call":"lost","tool":"bash","input":{}})");
    log.add("tool_call", R"({"turn":1,"answer":2,"block":0,"call":"a","tool":"bash","input":{}})");
    log.add("answered", R"({"turn":1,"answer":2,"stop":"tool_calls","told":5,"usage":null,"cost":null})");
    REQUIRE(log.progress().turn().calls.size() == 1);
    CHECK(!log.progress().turn().is_cost_known);
    const int64_t question = log.add("question", R"x({"turn":1,"call":"a","rules":["bash(ls)"]})x");
    CHECK(log.progress().turn().calls[0].question == question);
    log.add("decided", fmt::format(R"({{"question":{},"answer":"session","message":"","by":"x"}})", question));
    CHECK(log.progress().turn().calls[0].decided == "session");
    REQUIRE(log.progress().rules().size() == 1);
    CHECK(log.progress().rules()[0].rule == "bash(ls)");
    log.add("tool_started", R"({"turn":1,"call":"a"})");
    CHECK(log.progress().turn().calls[0].is_started);
    log.add("turn_resumed", R"({"turn":1,"times":2})");
    CHECK(log.progress().turn().resumes == 2);
    log.add("tool_result", R"({"turn":1,"call":"a","outcome":"interrupted","output":""})");
    CHECK(log.progress().turn().resumes == 0);
    CHECK(log.progress().turn().calls_done == 1);
    log.add("turn_interrupted", R"({"turn":1})");
    CHECK(log.progress().turn().is_interrupted);
    log.add("turn_ended", R"({"turn":1,"outcome":"interrupted"})");
    log.add("turn_interrupted", R"({"turn":3})");
    log.add("turn_started", R"({"turn":3,"prompt":3})");
    CHECK(log.progress().turn().is_interrupted);
}

TEST_CASE("events that are no good JSON are read as empty") {
    Log log;
    for (const char* kind : {"prompt", "turn_started", "text", "answered", "tool_result", "question", "decided", "turn_ended", "turn_retried"}) {
        log.add(kind, "[1,2");
        log.add(kind, "[]");
        log.add(kind, R"({"images":7,"usage":[],"turn":"x","rules":{}})");
    }
    CHECK(log.progress().last_seq() == 27);
    log.messages();
}

TEST_CASE("the mode lets through what it allows; rules and people decide the rest") {
    ToolUse write;
    write.subjects = {"src/a.cc"};
    write.needs = Mode::workspace_write;
    ToolUse command;
    command.subjects = {"git status"};
    command.needs = Mode::danger_full_access;
    command.is_command = true;
    const auto verdict = [](std::string_view tool, const ToolUse& use, Mode mode, std::vector<store::Grant> grants) { return judge(tool, use, mode, grants).verdict; };
    struct Row {
        const char* rule;
        const char* decision;
        Verdict write, command;  // in read-only mode
    };
    const Row rows[] = {
        {"write_file", "allow", Verdict::run, Verdict::ask},
        {"write_file(src/a.cc)", "allow", Verdict::run, Verdict::ask},
        {"write_file(src:*)", "allow", Verdict::run, Verdict::ask},
        {"write_file(src/:*)", "allow", Verdict::run, Verdict::ask},
        {"write_file(sr:*)", "allow", Verdict::ask, Verdict::ask},
        {"write_file(src)", "allow", Verdict::ask, Verdict::ask},
        {"write_file(src:*)", "deny", Verdict::deny, Verdict::ask},
        {"bash(git:*)", "allow", Verdict::ask, Verdict::run},
        {"bash(git s:*)", "allow", Verdict::ask, Verdict::ask},
        {"bash(git status)", "allow", Verdict::ask, Verdict::run},
        {"bash(:*)", "allow", Verdict::ask, Verdict::run},
        {"bash", "deny", Verdict::ask, Verdict::deny},
        {"Bash", "allow", Verdict::ask, Verdict::ask},
        {"bash(", "allow", Verdict::ask, Verdict::ask},
    };
    for (const Row& row : rows) {
        CHECK_MESSAGE(verdict("write_file", write, Mode::read_only, {grant(row.rule, row.decision)}) == row.write, row.rule);
        CHECK_MESSAGE(verdict("bash", command, Mode::read_only, {grant(row.rule, row.decision)}) == row.command, row.rule);
    }
    CHECK(verdict("write_file", write, Mode::workspace_write, {}) == Verdict::run);
    CHECK(verdict("bash", command, Mode::workspace_write, {}) == Verdict::ask);
    CHECK(verdict("bash", command, Mode::danger_full_access, {}) == Verdict::run);
    // deny wins over ask and allow, ask over the mode and allow.
    CHECK(verdict("bash", command, Mode::danger_full_access, {grant("bash", "allow"), grant("bash(git:*)", "ask")}) == Verdict::ask);
    CHECK(verdict("bash", command, Mode::danger_full_access, {grant("bash(git:*)", "ask"), grant("bash(git status)", "deny")}) == Verdict::deny);
    // Of several segments each needs a rule.
    command.subjects = {"git status", "rm x"};
    CHECK(verdict("bash", command, Mode::read_only, {grant("bash(git:*)", "allow")}) == Verdict::ask);
    CHECK(verdict("bash", command, Mode::read_only, {grant("bash(git:*)", "allow"), grant("bash(rm:*)", "allow")}) == Verdict::run);
    CHECK(verdict("bash", command, Mode::danger_full_access, {grant("bash(rm:*)", "deny")}) == Verdict::deny);
}

TEST_CASE("what could not be taken apart is not let through by a prefix, and asks where a prefix forbids") {
    ToolUse use;
    use.subjects = {"git status; rm x"};
    use.needs = Mode::danger_full_access;
    use.is_command = use.is_opaque = true;
    CHECK(judge("bash", use, Mode::read_only, {grant("bash(git:*)", "allow")}).verdict == Verdict::ask);
    CHECK(judge("bash", use, Mode::read_only, {grant("bash(git status; rm x)", "allow")}).verdict == Verdict::run);
    CHECK(judge("bash", use, Mode::danger_full_access, {grant("bash(rm:*)", "deny")}).verdict == Verdict::ask);
    CHECK(rules_for("bash", use) == std::vector<std::string>{"bash(git status; rm x)"});
    use.subjects = {"echo a:*"};
    CHECK(rules_for("bash", use).empty());
    use.asks_always = true;
    CHECK(judge("bash", use, Mode::danger_full_access, {grant("bash", "allow")}).verdict == Verdict::ask);
    CHECK(rules_for("bash", use).empty());
    CHECK(check_rule("bash(git:*)"));
    CHECK(!check_rule("bash(git"));
    CHECK(!check_rule(""));
}

TEST_CASE("the system prompt has the memory files from the git root down, and is the same each time") {
    TemporaryFolder outer;
    const auto put = [&](const std::string& name, std::string_view text) {
        std::filesystem::create_directories((outer / name).parent_path());
        REQUIRE(write_file_atomically(outer / name, text, 0644));
    };
    put("AGENTS.md", "of the parent, beyond the root");
    put("config/AGENTS.md", "the user's own");
    put("repo/.git/HEAD", "x");
    put("repo/AGENTS.md", "of the root");
    put("repo/sub/CLAUDE.md", "of the folder");
    put("repo/sub/AGENTS.local.md", "local");
    put("secret", "a key");
    std::filesystem::create_symlink(outer / "repo/AGENTS.md", outer / "repo/CLAUDE.md");
    std::filesystem::create_symlink(outer / "secret", outer / "repo/sub/AGENTS.md");
    const SystemFacts facts{outer / "repo/sub", outer / "config", 1'700'000'000'000};
    const std::string text = make_system_prompt(facts);
    CHECK(text == make_system_prompt(facts));
    CHECK(text.size() < 2'000);
    CHECK(text.find("Date: 2023-11-1") != std::string::npos);
    CHECK(text.find("of the parent") == std::string::npos);
    CHECK(text.find("a key") == std::string::npos);
    const size_t own = text.find("the user's own"), root = text.find("of the root"), local = text.find("\nlocal\n"), folder = text.find("of the folder");
    CHECK(own < root);
    CHECK(root < local);
    CHECK(local < folder);
    CHECK(folder != std::string::npos);
    CHECK(text.find("of the root", root + 1) == std::string::npos);
    put("repo/AGENTS.md", std::string(100'000, 'x'));
    CHECK(make_system_prompt(facts).find("[... the rest of its 100000 bytes is left out]") != std::string::npos);
}

TEST_CASE("children get no variable that is not known to be harmless") {
    for (const char* name : {"PATH", "LC_ALL", "XDG_DATA_HOME", "VIRTUAL_ENV"}) CHECK(is_allowed_variable(name));
    for (const char* name : {"ANTHROPIC_API_KEY", "TORPOR_DIR", "LD_PRELOAD", "XDG_TOKEN", "LC_SECRET", "GITHUB_TOKEN", "NOTIFY_SOCKET", ""}) CHECK(!is_allowed_variable(name));
    const Environment allowed = allowed_of({{"PATH", "/bin"}, {"OPENAI_API_KEY", "x"}, {"HOME", std::string(100'000, 'x')}});
    CHECK(allowed == Environment{{"PATH", "/bin"}});
}
