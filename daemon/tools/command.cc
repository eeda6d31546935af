#include "daemon/tools/command.hh"

#include "base/fd.hh"
#include "daemon/tools/limits.hh"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <vector>

namespace torpor::tools {

namespace {

using Clock = std::chrono::steady_clock;

constexpr int could_not_start = 127;  // what shells say, too

struct Started {
    pid_t pid = 0;
    Fd pidfd;
    Fd output;
};

// Between fork and exec only what is safe in the child of a process with threads.
[[noreturn]] void become(const char* shell, char* const* arguments, char* const* environment, const char* folder, int input, int output, pid_t parent) {
    ::setsid();
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != parent) ::_exit(could_not_start);  // it died before it could be watched
    for (int signal = 1; signal < NSIG; ++signal) ::signal(signal, SIG_DFL);
    sigset_t none;
    ::sigemptyset(&none);
    ::sigprocmask(SIG_SETMASK, &none, nullptr);
    ::umask(child_umask);
    ::dup2(input, 0);
    ::dup2(output, 1);
    ::dup2(output, 2);
    ::syscall(SYS_close_range, 3U, ~0U, 0U);
    if (::chdir(folder) == 0) ::execve(shell, arguments, environment);
    ::_exit(could_not_start);
}

Result<Started> start(const Command& command) {
    struct stat found{};
    if (::stat(command.folder.c_str(), &found) != 0 || !S_ISDIR(found.st_mode)) {
        return fail(Kind::invalid, "the folder {} is not there", command.folder.string());
    }
    const char* const shell = ::access("/bin/bash", X_OK) == 0 ? "/bin/bash" : "/bin/sh";
    std::array<int, 2> ends{};
    if (::pipe2(ends.data(), O_CLOEXEC) != 0) return fail_errno(Kind::internal, "cannot make a pipe");
    Started started;
    started.output = Fd(ends[0]);
    Fd child_output(ends[1]), nothing(::open("/dev/null", O_RDONLY | O_CLOEXEC));
    std::vector<std::string> variables;
    for (const auto& [name, value] : command.environment) variables.push_back(name + "=" + value);
    std::vector<char*> environment;
    for (std::string& variable : variables) environment.push_back(variable.data());
    environment.push_back(nullptr);
    std::string name = shell, option = "-c", line = command.line;
    std::array<char*, 4> arguments{name.data(), option.data(), line.data(), nullptr};

    const pid_t parent = ::getpid();
    started.pid = ::fork();
    if (started.pid < 0) return fail_errno(Kind::internal, "cannot start a shell");
    if (started.pid == 0) {
        become(shell, arguments.data(), environment.data(), command.folder.c_str(), nothing.get(), child_output.get(), parent);
    }
    started.pidfd = Fd(static_cast<int>(::syscall(SYS_pidfd_open, started.pid, 0)));
    ::fcntl(started.output.get(), F_SETFL, O_NONBLOCK);
    return started;
}

// False once there can be no more.
bool pass_output(const Started& started, const Command& command) {
    std::array<char, 16 * 1024> buffer;
    for (;;) {
        const ssize_t count = ::read(started.output.get(), buffer.data(), buffer.size());
        if (count > 0) {
            command.output({buffer.data(), static_cast<size_t>(count)});
            // Else a command that never stops writing is never found to be over its time.
            return true;
        }
        if (count < 0 && errno == EINTR) continue;
        return count < 0 && errno == EAGAIN;
    }
}

int milliseconds_until(Clock::time_point end) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(end - Clock::now()).count();
    return static_cast<int>(std::clamp<int64_t>(left, 0, 3'600'000));
}

// Until the shell ends, its time is over or it is to stop.
CommandEnd::Why wait_for(const Started& started, const Command& command, int stop_fd) {
    const auto end = Clock::now() + command.time;
    bool is_open = true;
    for (;;) {
        std::array<pollfd, 3> watched{pollfd{started.pidfd.get(), POLLIN, 0}, pollfd{stop_fd, POLLIN, 0},
                                      pollfd{is_open ? started.output.get() : -1, POLLIN, 0}};
        const int ready = ::poll(watched.data(), watched.size(), milliseconds_until(end));
        if (ready < 0 && errno != EINTR) return CommandEnd::Why::stopped;
        if (ready > 0 && watched[1].revents != 0) return CommandEnd::Why::stopped;
        if (ready > 0 && watched[2].revents != 0) is_open = pass_output(started, command);
        if (ready > 0 && watched[0].revents != 0) return CommandEnd::Why::ended;
        if (Clock::now() >= end) return CommandEnd::Why::timed_out;
    }
}

// The shell is not reaped yet, so its number still names its session. What it leaves becomes our child (main.cc makes us
// the reaper) and is reaped here.
void end_session(pid_t leader) {
    ::kill(leader, SIGKILL);
    const auto end = Clock::now() + bash_kill_time;
    do {
        std::vector<pid_t> left = session_members(leader);
        std::erase(left, leader);
        if (left.empty()) return;
        for (const pid_t pid : left) ::kill(pid, SIGKILL);
        ::poll(nullptr, 0, 1);
        reap(left);
    } while (Clock::now() < end);
}

// What was written before the end. Others may hold the pipe for good: those that left the session.
void pass_rest(const Started& started, const Command& command) {
    const auto end = Clock::now() + bash_rest_time;
    while (Clock::now() < end) {
        pollfd watched{started.output.get(), POLLIN, 0};
        if (::poll(&watched, 1, 0) <= 0 || !pass_output(started, command)) return;
    }
}

}  // namespace

Result<CommandEnd> run_command(const Command& command) {
    Fd stop_fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (!stop_fd) return fail_errno(Kind::internal, "cannot make an eventfd");
    const std::stop_callback wake(command.stop, [fd = stop_fd.get()] {
        const uint64_t one = 1;
        static_cast<void>(!::write(fd, &one, sizeof one));
    });
    auto started = start(command);
    if (!started) return Failure(started.error());
    CommandEnd end;
    end.why = wait_for(*started, command, stop_fd.get());
    end_session(started->pid);
    int status = 0;
    while (::waitpid(started->pid, &status, 0) < 0 && errno == EINTR) {
    }
    if (WIFEXITED(status)) end.ending.code = WEXITSTATUS(status);
    if (WIFSIGNALED(status)) end.ending.signal = WTERMSIG(status);
    pass_rest(*started, command);
    return end;
}

}  // namespace torpor::tools
