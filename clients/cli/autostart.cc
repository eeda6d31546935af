#include "clients/cli/autostart.hh"

#include "base/fd.hh"
#include "base/programs.hh"

#include <fcntl.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>

namespace torpor::cli {

namespace {

constexpr std::chrono::seconds start_time_max{10};  // a daemon serves within 30 ms; a busy disk may take longer

// Starts torpord in a session of its own, with nothing of our terminal; it says on `ready_fd` how it went.
Result<void> spawn(const std::string& program, int ready_fd) {
    const pid_t child = ::fork();
    if (child < 0) return fail_errno(Kind::no_daemon, "torpord cannot be started");
    if (child > 0) return {};
    ::setsid();
    (void)!::chdir("/");
    const int nowhere = ::open("/dev/null", O_RDWR);
    for (const int number : {0, 1, 2}) ::dup2(nowhere, number);
    ::dup2(ready_fd, 3);
    ::close_range(4, ~0U, 0);
    ::fcntl(3, F_SETFD, 0);
    ::execl(program.c_str(), "torpord", "--ready-fd", "3", nullptr);
    const std::string_view text = "torpord cannot be run";
    (void)!::write(3, text.data(), text.size());
    ::_exit(1);
}

// What torpord said until it closed the pipe, or until the deadline.
std::string read_until(int fd, std::chrono::steady_clock::time_point deadline) {
    std::string said;
    for (;;) {
        const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
        pollfd wait{fd, POLLIN, 0};
        if (left.count() <= 0 || ::poll(&wait, 1, static_cast<int>(left.count())) <= 0) return said;
        std::array<char, 1024> piece;
        const ssize_t count = ::read(fd, piece.data(), piece.size());
        if (count <= 0) return said;
        said.append(piece.data(), static_cast<size_t>(count));
    }
}

Result<Fd> lock_start(const Folders& folders, std::chrono::steady_clock::time_point deadline) {
    Fd lock(::open((folders.runtime / "start.lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
    if (!lock) return fail_errno(Kind::no_daemon, "the lock for starting torpord cannot be made in " + folders.runtime.string());
    constexpr useconds_t gap_us = 5'000;  // flock has no deadline of its own
    while (::flock(lock.get(), LOCK_EX | LOCK_NB) != 0) {
        if (std::chrono::steady_clock::now() > deadline) {
            return fail(Kind::no_daemon, "another torpor has been starting the daemon for {} s", start_time_max.count());
        }
        ::usleep(gap_us);
    }
    return lock;
}

}  // namespace

bool is_running(const Folders& folders) {
    Fd probe(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strncpy(address.sun_path, folders.socket().c_str(), sizeof address.sun_path - 1);
    return probe && ::connect(probe.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
}

Result<void> ensure_running(const Folders& folders) {
    if (is_running(folders)) return {};
    if (auto made = make_private_folder(folders.runtime); !made) return made;
    const auto deadline = std::chrono::steady_clock::now() + start_time_max;
    auto lock = lock_start(folders, deadline);
    if (!lock) return Failure(lock.error());
    if (is_running(folders)) return {};  // somebody else was faster
    auto program = find_beside("torpord", "daemon");
    if (!program) return Failure({Kind::no_daemon, program.error().message, {}});
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) return fail_errno(Kind::no_daemon, "torpord cannot be started");
    Fd reader(ends[0]), writer(ends[1]);
    if (auto spawned = spawn(*program, writer.get()); !spawned) return spawned;
    writer.reset();
    const std::string said = read_until(reader.get(), deadline);
    if (said == "ready\n") return {};
    if (said.empty()) {
        return fail(Kind::no_daemon, "torpord did not start within {} s; its log is {}", start_time_max.count(),
                    (folders.logs() / "torpord.log").string());
    }
    return fail(Kind::no_daemon, "torpord did not start: {}", said);
}

}  // namespace torpor::cli
