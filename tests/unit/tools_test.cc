#include "base/json_schema.hh"
#include "daemon/agent/tool.hh"
#include "daemon/tools/cut.hh"
#include "daemon/tools/diff.hh"
#include "daemon/tools/limits.hh"

#include "base/fd.hh"
#include "temporary_folder.hh"

#include <doctest/doctest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>

using namespace torpor;
using agent::Mode;

namespace {

struct Bench {
    TemporaryFolder outer;
    agent::ToolContext context;
    std::string watched;
    std::stop_source stop;
    simdjson::dom::parser parser;

    Bench() {
        std::filesystem::create_directory(outer / "project");
        context.folder = outer / "project";
        context.environment = {{"PATH", "/usr/bin:/bin"}};
        context.mode = Mode::workspace_write;
        context.stop = stop.get_token();
        context.output = [this](std::string_view piece) { watched += piece; };
    }
    void put(const std::string& name, std::string_view text) {
        REQUIRE(write_file_atomically(context.folder / name, text, 0644));
    }
    std::string get(const std::string& name) { return read_file(context.folder / name, 1 << 24).value_or("(not there)"); }
    simdjson::dom::object parse(const std::string& json) { return parser.parse(json).get_object().value(); }

    Result<agent::ToolUse> look(std::string_view tool, const std::string& json) {
        const agent::Tool* found = agent::find_tool(tool);
        REQUIRE(found != nullptr);
        return found->look(parse(json), context);
    }
    agent::ToolResult run(std::string_view tool, const std::string& json) {
        auto result = agent::find_tool(tool)->run(parse(json), context);
        REQUIRE(result);
        return *result;
    }
};

// One that has ended may wait for its parent to take note.
bool is_running(int pid) {
    const std::string stat = read_file(fmt::format("/proc/{}/stat", pid), 4096).value_or("");
    return !stat.empty() && stat.find(") Z ") == std::string::npos;
}

}  // namespace

TEST_CASE("a tool's input is checked against its schema, in words for the model") {
    simdjson::dom::parser parser;
    const auto complaint = [&](std::string_view tool, const std::string& json) {
        auto checked = check_json(agent::find_tool(tool)->schema, parser.parse(json).value());
        return checked ? std::string() : checked.error().message;
    };
    CHECK(complaint("read_file", R"({"path":"a","offset":0,"limit":10})").empty());
    CHECK(complaint("read_file", "{}") == "'path' is missing");
    CHECK(complaint("read_file", R"({"path":7})") == "'path' must be a string");
    CHECK(complaint("read_file", R"({"path":""})") == "'path' must have at least 1 character");
    CHECK(complaint("read_file", R"({"path":"a","path":"b"})") == "'path' is given twice");
    CHECK(complaint("read_file", R"({"path":"a","limit":0})") == "'limit' must be at least 1");
    CHECK(complaint("read_file", R"({"path":"a","limit":1.5})") == "'limit' must be an integer");
    CHECK(complaint("read_file", R"({"path":"a","ofset":1})") == "'ofset' is not known; did you mean offset?; there are path, offset, limit");
    CHECK(complaint("bash", R"({"command":"ls","run_in_background":true})").starts_with("'run_in_background' is not known"));
    for (const agent::Tool& tool : agent::tools()) CHECK(parser.parse(std::string(tool.schema)).error() == simdjson::SUCCESS);
}

TEST_CASE("read_file numbers lines, and says where to read on") {
    Bench bench;
    bench.put("a.txt", "one\ntwo\r\nthree");
    CHECK(bench.run("read_file", R"({"path":"a.txt"})").output == "     1\tone\n     2\ttwo\n     3\tthree\n");
    CHECK(bench.run("read_file", R"({"path":"a.txt","offset":1,"limit":1})").output == "     2\ttwo\n(there is more; read on with offset 2)\n");
    CHECK(bench.run("read_file", R"({"path":"a.txt","offset":2,"limit":1})").output == "     3\tthree\n");
    CHECK(bench.run("read_file", R"({"path":"a.txt","offset":9})").output == "(the file has 3 lines only; the first is at offset 0)");
    bench.put("end.txt", "one\n");
    CHECK(bench.run("read_file", R"({"path":"end.txt","limit":1})").output == "     1\tone\n");
    bench.put("empty.txt", "");
    CHECK(bench.run("read_file", R"({"path":"empty.txt"})").output == "(the file is empty)");
}

TEST_CASE("read_file bounds what a model is shown, and refuses what is no text") {
    Bench bench;
    std::string many;
    for (int i = 0; i < 5000; ++i) many += "line\n";
    bench.put("many.txt", many);
    CHECK(bench.run("read_file", R"({"path":"many.txt"})").output.ends_with("(there is more; read on with offset 2000)\n"));
    bench.put("long.txt", std::string(200'000, 'x') + "\nafter\n");
    const auto shortened = bench.run("read_file", R"({"path":"long.txt"})");
    CHECK(shortened.output.size() < 3'000);
    CHECK(shortened.output.find("[... of 200000 bytes]") != std::string::npos);
    CHECK(shortened.output.ends_with("     2\tafter\n"));
    bench.put("wide.txt", std::string("\n").insert(0, 1'900, 'y') + many + many);
    CHECK(bench.run("read_file", R"({"path":"wide.txt"})").output.size() <= tools::read_bytes_max);
    using namespace std::string_view_literals;
    bench.put("a.png", "\x89PNG\r\n\x1A\n\0\0"sv);
    CHECK(bench.run("read_file", R"({"path":"a.png"})").output == "a.png is a PNG image (10 B), not text");
    bench.put("b.bin", "ab\0cd"sv);
    CHECK(bench.run("read_file", R"({"path":"b.bin"})").output == "b.bin is binary (5 B), not text");
    CHECK(bench.run("read_file", R"({"path":"."})").output == ". is a folder; list it with bash (ls)");
    CHECK(bench.run("read_file", R"({"path":"many.tx"})").output == "there is no many.tx; did you mean many.txt?");
    ::mkfifo((bench.context.folder / "pipe").c_str(), 0600);
    CHECK(bench.run("read_file", R"({"path":"pipe"})").output == "pipe is no plain file");
}

TEST_CASE("files outside of the folder are asked about, by whatever way they are reached") {
    Bench bench;
    REQUIRE(write_file_atomically(bench.outer / "secret", "key", 0600));
    std::filesystem::create_symlink(bench.outer / "secret", bench.context.folder / "link");
    std::filesystem::create_directory_symlink(bench.outer.path(), bench.context.folder / "up");
    for (const char* path : {R"({"path":"../secret"})", R"({"path":"link"})", R"({"path":"up/secret"})", R"({"path":"/etc/passwd"})"}) {
        const auto use = bench.look("read_file", path);
        REQUIRE(use);
        CHECK(use->leaves_folder);
        CHECK(use->needs == Mode::danger_full_access);
        CHECK(use->subjects[0].starts_with("/"));
        const auto refused = bench.run("read_file", path);  // it was not allowed
        CHECK(refused.failed);
        CHECK(refused.output.find("outside of the session's folder") != std::string::npos);
    }
    bench.context.may_leave_folder = true;
    CHECK(bench.run("read_file", R"({"path":"link"})").output == "     1\tkey\n");
    CHECK(bench.look("read_file", R"({"path":"sub/../a.txt"})")->subjects[0] == "a.txt");
}

TEST_CASE("keys of processes and Torpor's own folders are refused in every mode") {
    Bench bench;
    bench.context.mode = Mode::danger_full_access;
    bench.context.hidden = {bench.outer / "state"};
    std::filesystem::create_directory(bench.outer / "state");
    std::filesystem::create_directory_symlink(bench.outer / "state", bench.context.folder / "mine");
    for (const char* path : {R"({"path":"/proc/self/environ"})", R"({"path":"/proc/1/environ"})", R"({"path":"/proc/self/task/../environ"})",
                             R"({"path":"../state/torpor.db"})", R"({"path":"mine/torpor.db"})"}) {
        const auto use = bench.look("read_file", path);
        REQUIRE_MESSAGE(!use, path);
        CHECK(use.error().kind == Kind::refused);
    }
}

TEST_CASE("write_file replaces all of a file, keeps its mode and shows what changed") {
    Bench bench;
    const auto made = bench.run("write_file", R"({"path":"new/deep/a.txt","content":"one\n"})");
    CHECK(made.output == "new/deep/a.txt is written: 1 lines");
    CHECK(bench.get("new/deep/a.txt") == "one\n");
    struct stat found{};
    ::stat((bench.context.folder / "new/deep").c_str(), &found);
    CHECK((found.st_mode & 07777) == 0755);
    ::chmod((bench.context.folder / "new/deep/a.txt").c_str(), 0750);
    const auto use = bench.look("write_file", R"({"path":"new/deep/a.txt","content":"two\n"})");
    CHECK(use->title == "overwrite new/deep/a.txt (1 line)");
    CHECK(use->detail == "--- new/deep/a.txt\n+++ new/deep/a.txt\n@@ -1,1 +1,1 @@\n-one\n+two\n");
    CHECK(use->needs == Mode::workspace_write);
    CHECK(!use->asks_always);
    bench.run("write_file", R"({"path":"new/deep/a.txt","content":"two\n"})");
    ::stat((bench.context.folder / "new/deep/a.txt").c_str(), &found);
    CHECK((found.st_mode & 07777) == 0750);
    CHECK(bench.get("new/deep/a.txt") == "two\n");
    CHECK(std::distance(std::filesystem::directory_iterator(bench.context.folder / "new/deep"), {}) == 1);
    CHECK(bench.run("write_file", R"({"path":"new","content":""})").output == "new is a folder");
}

TEST_CASE("write_file always asks for what can change what is run or allowed") {
    Bench bench;
    bench.context.mode = Mode::danger_full_access;
    for (const char* path : {".git/hooks/pre-commit", ".git/config", "sub/.git/config", ".torpor/x", ".mcp.json", ".claude/settings.json", ".GIT/config", ".git", "sub/.git"}) {
        CHECK_MESSAGE(bench.look("write_file", fmt::format(R"({{"path":"{}","content":""}})", path))->asks_always, path);
    }
    CHECK(!bench.look("write_file", R"({"path":".gitignore","content":""})")->asks_always);
    CHECK(!bench.look("write_file", R"({"path":"/tmp/x","content":""})")->asks_always);
    bench.context.mode = Mode::workspace_write;
    CHECK(bench.look("write_file", R"({"path":"/tmp/x","content":""})")->asks_always);
}

TEST_CASE("bash gives both streams, the exit status, and nothing of the daemon's environment") {
    Bench bench;
    ::setenv("TORPOR_TEST_KEY", "secret", 1);
    const auto result = bench.run("bash", R"({"command":"echo out; echo err >&2; env | grep -c TEST_KEY; cat; umask; exit 3"})");
    CHECK(result.output == "out\nerr\n0\n0022\n[it exited with status 3]");
    CHECK(result.failed);
    CHECK(result.detail == R"({"exit_status":3})");
    CHECK(bench.watched == "out\nerr\n0\n0022\n");
    CHECK(bench.run("bash", R"({"command":"pwd"})").output == std::filesystem::canonical(bench.context.folder).string() + "\n");
    CHECK(bench.run("bash", R"({"command":"true"})").output == "(no output)");
    CHECK(bench.run("bash", R"({"command":"kill -TERM $$"})").output == "[it was killed by signal 15 (Terminated)]");
}

TEST_CASE("bash keeps what came before a time-out or an interruption, and leaves nothing running") {
    Bench bench;
    const auto late = bench.run("bash", R"({"command":"echo begun; sleep 1000 & echo $!; sleep 1000","timeout":300})");
    CHECK(late.output.starts_with("begun\n"));
    CHECK(late.output.find("ended after its time-out of 300 ms") != std::string::npos);
    CHECK(late.detail == R"({"timed_out":true})");
    CHECK(!is_running(std::atoi(late.output.c_str() + 6)));
    const auto left = bench.run("bash", R"({"command":"sleep 1000 & echo $!"})");
    CHECK(!left.failed);
    CHECK(!is_running(std::atoi(left.output.c_str())));

    bench.watched.clear();
    bench.context.output = [&](std::string_view) { bench.stop.request_stop(); };
    const auto stopped = bench.run("bash", R"({"command":"echo begun; sleep 1000"})");
    CHECK(stopped.is_cut_short);
    CHECK(stopped.output == "begun\n[it was interrupted; it and what it started were ended]");
}

TEST_CASE("bash cuts long output in the middle and keeps the whole") {
    Bench bench;
    const auto result = bench.run("bash", R"({"command":"seq 1 50000"})");
    CHECK(result.output.size() < tools::output_bytes_max + 100);
    CHECK(result.output.starts_with("1\n2\n"));
    CHECK(result.output.ends_with("49999\n50000\n"));
    CHECK(result.output.find("bytes are left out here") != std::string::npos);
    CHECK(result.whole.size() == 288'894);
    const auto flood = bench.run("bash", R"({"command":"yes | head -c 20000000"})");
    CHECK(flood.whole.size() <= tools::whole_bytes_max + 100);
}

TEST_CASE("bash is taken apart for rules only where it is plain words") {
    Bench bench;
    const auto is_opaque = [&](const std::string& line) { return bench.look("bash", fmt::format(R"({{"command":"{}"}})", line))->is_opaque; };
    CHECK(!is_opaque("git status"));
    CHECK(!is_opaque("ls -la src/x.cc"));
    for (const char* line : {"ls; rm x", "ls && rm x", "ls | sh", "ls > x", "$(rm x)", "ls *", "a=b rm x", "ls\\nrm x", "ls 'a'", "~/x", "#", " rm", "!x"}) {
        CHECK_MESSAGE(is_opaque(line), line);
    }
}

TEST_CASE("texts are cut at whole characters, and say what is missing") {
    CHECK(tools::cut_middle("short", 10) == "short");
    const std::string cut = tools::cut_middle("ääääääääää", 10);
    CHECK(cut == "ää\n[... 12 bytes are left out here ...]\nää");
    tools::Keeper keeper(10);
    for (int i = 0; i < 100; ++i) keeper.add("ab");
    CHECK(keeper.text() == "ababa\n[... 190 bytes are left out here ...]\nbabab");
    tools::Keeper few(10);
    few.add("1234567890");
    CHECK(few.text() == "1234567890");
}

TEST_CASE("a diff has one hunk around what changed") {
    CHECK(tools::diff_of("same\n", "same\n", "f").text.empty());
    const auto diff = tools::diff_of("1\n2\n3\n4\n5\n6\n7\n", "1\n2\n3\n4\nfive\n5b\n6\n7\n", "f");
    CHECK(diff.added == 2);
    CHECK(diff.removed == 1);
    CHECK(diff.text == "--- f\n+++ f\n@@ -2,6 +2,7 @@\n 2\n 3\n 4\n-5\n+five\n+5b\n 6\n 7\n");
    CHECK(tools::diff_of("", "new\n", "f").text == "--- f\n+++ f\n@@ -0,0 +1,1 @@\n+new\n");
}
