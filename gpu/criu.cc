#include "gpu/criu.hh"

#include "base/fd.hh"
#include "base/text.hh"
#include "gpu/engine.hh"
#include "gpu/limits.hh"
#include "gpu/shared_files.hh"

#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <sstream>

namespace torpor::gpu {

namespace {

// criu keeps what it finds out about the kernel, for a plain user in XDG_RUNTIME_DIR: trusted only if it is ours.
std::vector<std::string> environment_of_criu() {
    std::vector<std::string> environment{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"};
    const char* runtime = std::getenv("XDG_RUNTIME_DIR");
    struct stat info{};
    if (runtime != nullptr && ::stat(runtime, &info) == 0 && info.st_uid == ::geteuid() && (info.st_mode & 022) == 0) {
        environment.push_back(std::string("XDG_RUNTIME_DIR=") + runtime);
    }
    return environment;
}

// Runs a short command and gives its output; for questions at start, before the loop runs.
Result<std::string> ask(const std::vector<std::string>& argv, std::chrono::milliseconds time_max) {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) return fail_errno(Kind::internal, "cannot make a pipe");
    Fd reader(ends[0]), writer(ends[1]);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, writer.get(), 1);
    posix_spawn_file_actions_adddup2(&actions, writer.get(), 2);
    const auto environment = environment_of_criu();
    std::vector<char*> arguments, variables;
    for (const std::string& part : argv) arguments.push_back(const_cast<char*>(part.c_str()));
    for (const std::string& variable : environment) variables.push_back(const_cast<char*>(variable.c_str()));
    arguments.push_back(nullptr);
    variables.push_back(nullptr);
    pid_t pid = 0;
    const int code = ::posix_spawn(&pid, arguments[0], &actions, nullptr, arguments.data(), variables.data());
    posix_spawn_file_actions_destroy(&actions);
    if (code != 0) return Failure(Error{Kind::engine, fmt::format("cannot run {}", argv[0]), std::strerror(code)});
    writer.reset();
    std::string output;
    const auto end = std::chrono::steady_clock::now() + time_max;
    for (;;) {
        const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(end - std::chrono::steady_clock::now());
        pollfd wait{reader.get(), POLLIN, 0};
        if (left.count() <= 0 || ::poll(&wait, 1, static_cast<int>(left.count())) == 0) {
            ::kill(pid, SIGKILL);
            break;
        }
        char buffer[4096];
        const ssize_t count = ::read(reader.get(), buffer, sizeof buffer);
        if (count <= 0) break;
        if (output.size() < probe_answer_bytes_max) output.append(buffer, static_cast<size_t>(count));
    }
    int status = 0;
    ::waitpid(pid, &status, 0);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
        return Failure(Error{Kind::engine, fmt::format("{} failed", argv[0]), last_lines(output, 2)});
    }
    return output;
}

// Older ones do not start on kernels of 6.x: they do not know the vDSO there.
constexpr int oldest_major = 4, oldest_minor = 1;

// "4.2.1" from "Version: 4.2.1"; empty if it does not say.
std::string version_of(const std::string& program) {
    const std::string said = ask({program, "--version"}, check_time_max).value_or("");
    constexpr std::string_view label = "Version:";
    const size_t at = said.find(label);
    if (at == std::string::npos) return {};
    const std::string rest = said.substr(at + label.size(), said.find('\n', at) - at - label.size());
    const size_t start = rest.find_first_not_of(' ');
    return start == std::string::npos ? "" : rest.substr(start);
}

bool is_new_enough(const std::string& version) {
    int major = 0, minor = 0;
    const char* const end = version.data() + version.size();
    const auto [dot, code] = std::from_chars(version.data(), end, major);
    if (code == std::errc{} && dot != end && *dot == '.') std::from_chars(dot + 1, end, minor);
    return major > oldest_major || (major == oldest_major && minor >= oldest_minor);
}

// The line of criu's log that says what went wrong. Without CAP_SYS_RESOURCE it complains of its own limits, and goes on.
std::string first_complaint(const std::filesystem::path& log) {
    std::istringstream lines(read_tail(log, 64 * 1024));
    for (std::string line; std::getline(lines, line);) {
        const size_t at = line.find("Error (");
        if (at != std::string::npos && line.find("rlimit: ") == std::string::npos) return line.substr(at);
    }
    return {};
}

}  // namespace

namespace {

// What the outcome of `criu check` depends on, one line a fact. Empty: it cannot be told.
std::string circumstances(const std::string& program) {
    struct stat info{};
    utsname kernel{};
    auto boot = read_file("/proc/sys/kernel/random/boot_id", 256);
    if (::stat(program.c_str(), &info) != 0 || ::uname(&kernel) != 0 || !boot) return {};
    return fmt::format("{} {} {}{:09}\n{} {}\n{}uid {}\n", program, info.st_size, info.st_mtim.tv_sec, info.st_mtim.tv_nsec,
                       kernel.release, kernel.version, *boot, ::geteuid());
}

// `criu check` takes twice as long as all else of a start. That it was content is remembered until the next boot;
// a complaint is not, so that what was mended is seen at the next start.
Result<void> check_once(const CriuTool& tool, const std::filesystem::path& memory) {
    constexpr size_t memory_bytes_max = 4096;
    const std::string now = circumstances(tool.program);
    if (auto before = read_file(memory, memory_bytes_max); before && !now.empty() && *before == now) return {};
    std::vector<std::string> question{tool.program, "check"};
    if (tool.is_unprivileged) question.emplace_back("--unprivileged");
    if (auto checked = ask(question, check_time_max); !checked) return Failure(checked.error());
    if (!now.empty()) (void)write_file_atomically(memory, now, 0600);  // next time it is asked again
    return {};
}

// The one that the set-up built, or one on PATH. Fails with what people are to be told.
Result<std::string> find_built(const std::filesystem::path& data_folder) {
    const std::string fetched = data_folder / "criu/criu";
    if (::access(fetched.c_str(), X_OK) == 0) return fetched;
    std::string program = find_on_path("criu");
    if (program.empty()) return fail(Kind::engine, "criu is not installed; packaging/setup/fetch-criu builds it");
    const std::string version = version_of(program);
    if (is_new_enough(version)) return program;
    return fail(Kind::engine, "{} is version {}, but {}.{} or newer is needed; packaging/setup/fetch-criu builds one", program,
                version.empty() ? "unknown" : version, oldest_major, oldest_minor);
}

// Takes one that has the rights that torpord has not.
void find_unprivileged(CriuTool& tool, const Result<std::string>& built) {
    const std::string granted = granted_criu();
    const bool is_granted = ::access(granted.c_str(), X_OK) == 0;
    tool.is_unprivileged = true;
    if (is_granted || built) tool.program = is_granted ? granted : *built;
    if (tool.program.empty()) {
        tool.why_not = built.error().message;
    } else if (const auto obstacle = obstacle_to_rights()) {
        tool.why_not = *obstacle;
    } else if (const std::string lack = lack_of_rights(tool.program); !lack.empty()) {
        tool.why_not = fmt::format("{} lacks {}, which freezing needs where torpord is not root", tool.program, lack);
        tool.grant = grant_for(built.value_or(granted));
    }
}

}  // namespace

CriuTool find_criu(const std::filesystem::path& data_folder, const std::filesystem::path& memory) {
    CriuTool tool;
    const auto built = find_built(data_folder);
    if (::geteuid() != 0) {
        find_unprivileged(tool, built);
    } else if (built) {
        tool.program = *built;
    } else {
        tool.why_not = built.error().message;
    }
    if (!tool.why_not.empty()) return tool;
    if (auto checked = check_once(tool, memory); !checked) {
        tool.why_not = "criu cannot work here: " + checked.error().text();
        std::ranges::replace(tool.why_not, '\n', ' ');
    }
    return tool;
}

CriuCall::CriuCall(EventLoop& loop, std::filesystem::path criu_log, OnDone on_done)
    : deadline_(loop), criu_log_(std::move(criu_log)), on_done_(std::move(on_done)) {}

Result<std::unique_ptr<CriuCall>> CriuCall::run(EventLoop& loop, SpawnOptions options, std::filesystem::path criu_log,
                                                std::chrono::milliseconds time_max, OnDone on_done) {
    for (std::string& variable : environment_of_criu()) options.environment.push_back(std::move(variable));
    auto call = std::make_unique<CriuCall>(loop, std::move(criu_log), std::move(on_done));
    auto process = Process::spawn(loop, options, [raw = call.get()](Ending ending) {
        raw->deadline_.cancel();
        const auto on_done = std::move(raw->on_done_);
        if (ending.is_success()) return on_done({});
        const std::string what = raw->timed_out_ ? "took too long and was ended" : ending.text();
        on_done(Failure(Error{ending.signal != 0 ? Kind::cancelled : Kind::engine, "criu " + what, first_complaint(raw->criu_log_)}));
    });
    if (!process) return Failure(process.error());
    call->process_ = std::move(*process);
    call->deadline_.start(time_max, [raw = call.get()] {
        raw->timed_out_ = true;
        raw->kill();
    });
    return call;
}

void CriuCall::kill() {
    if (process_) process_->send(SIGKILL);
}

Result<std::unique_ptr<CriuCall>> CriuCall::dump(EventLoop& loop, const CriuTool& tool, pid_t pid,
                                                 const std::filesystem::path& image, OnDone on_done) {
    SpawnOptions options;
    options.argv = {tool.program,     "dump",           "--tree",    std::to_string(pid), "--images-dir", image.string(),
                    "--leave-running", "--link-remap",  "--ghost-limit", "64M",           "--tcp-close",  "--file-locks",
                    "--ext-unix-sk",  "--manage-cgroups=ignore", "--log-file", "dump.log", "-v1"};
    if (tool.is_unprivileged) options.argv.emplace_back("--unprivileged");
    if (!tool.hook.empty()) options.argv.insert(options.argv.end(), {"--action-script", tool.hook});
    options.environment = {fmt::format("{}={}", image_variable, image.string())};
    return run(loop, std::move(options), image / "dump.log", dump_time_max, std::move(on_done));
}

Result<std::unique_ptr<CriuCall>> CriuCall::restore(EventLoop& loop, const CriuTool& tool,
                                                    const std::filesystem::path& image, int log_fd,
                                                    const std::filesystem::path& log_path, OnDone on_done) {
    SpawnOptions options;
    const std::filesystem::path work = image.parent_path();
    options.argv = {tool.program,    "restore",       "--images-dir", image.string(),  "--work-dir",  work.string(),
                    "--restore-detached", "--restore-sibling", "--tcp-close", "--file-locks", "--ext-unix-sk",
                    "--manage-cgroups=ignore", "--inherit-fd", fmt::format("fd[3]:{}", log_path.string().substr(1)),
                    "--log-file", "restore.log", "-v1"};
    if (tool.is_unprivileged) options.argv.emplace_back("--unprivileged");
    options.inherited = {log_fd};
    return run(loop, std::move(options), work / "restore.log", restore_time_max, std::move(on_done));
}

}  // namespace torpor::gpu
