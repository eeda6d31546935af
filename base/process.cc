#include "base/process.hh"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <map>

namespace torpor {

std::string Ending::text() const {
    if (signal != 0) return fmt::format("was killed by signal {} ({})", signal, strsignal(signal));
    return fmt::format("exited with status {}", code);
}

namespace {

struct Spawned {
    uv_process_t process{};
    std::shared_ptr<Process*> owner;
    std::function<void(Process&, Ending)> finish;
};

std::vector<char*> pointers_to(const std::vector<std::string>& texts) {
    std::vector<char*> pointers;
    for (const std::string& text : texts) pointers.push_back(const_cast<char*>(text.c_str()));
    pointers.push_back(nullptr);
    return pointers;
}

int open_pidfd(pid_t pid) {
    return static_cast<int>(::syscall(SYS_pidfd_open, pid, 0));
}

}  // namespace

Result<std::unique_ptr<Process>> Process::spawn(EventLoop& loop, const SpawnOptions& options, OnEnd on_end) {
    auto made = std::make_unique<Process>(Passkey{});
    made->self_ = std::make_shared<Process*>(made.get());
    made->on_end_ = std::move(on_end);

    auto spawned = std::make_unique<Spawned>();
    spawned->owner = made->self_;
    spawned->finish = [](Process& process, Ending ending) { process.finish(ending); };
    spawned->process.data = spawned.get();

    auto argv = pointers_to(options.argv);
    auto environment = pointers_to(options.environment);
    std::vector<uv_stdio_container_t> stdio(3 + options.inherited.size());
    stdio[0].flags = UV_IGNORE;
    for (size_t i = 1; i < stdio.size(); ++i) {
        const int fd = i < 3 ? options.output : options.inherited[i - 3];
        stdio[i].flags = fd < 0 ? UV_IGNORE : UV_INHERIT_FD;
        stdio[i].data.fd = fd;
    }
    uv_process_options_t uv{};
    uv.file = argv[0];
    uv.args = argv.data();
    uv.env = environment.data();
    uv.cwd = options.working_folder.empty() ? nullptr : options.working_folder.c_str();
    uv.flags = options.own_session ? UV_PROCESS_DETACHED : 0;
    uv.stdio_count = static_cast<int>(stdio.size());
    uv.stdio = stdio.data();
    uv.exit_cb = [](uv_process_t* process, int64_t status, int signal) {
        auto* spawned = static_cast<Spawned*>(process->data);
        auto owner = spawned->owner;
        const auto finish = spawned->finish;
        uv_close(reinterpret_cast<uv_handle_t*>(process), [](uv_handle_t* closed) {
            std::unique_ptr<Spawned> owned(static_cast<Spawned*>(closed->data));
        });
        if (*owner != nullptr) finish(**owner, Ending{static_cast<int>(status), signal});
    };
    Spawned* raw = spawned.release();  // libuv owns it until its close callback, also after a failure
    const int code = uv_spawn(loop.handle(), &raw->process, &uv);
    if (code != 0) {
        uv_close(reinterpret_cast<uv_handle_t*>(&raw->process), [](uv_handle_t* closed) {
            std::unique_ptr<Spawned> owned(static_cast<Spawned*>(closed->data));
        });
        return Failure(Error{Kind::engine, fmt::format("cannot run {}", options.argv[0]), uv_strerror(code)});
    }
    made->pid_ = raw->process.pid;
    made->pidfd_ = Fd(open_pidfd(made->pid_));
    return made;
}

Result<std::unique_ptr<Process>> Process::watch(EventLoop& loop, pid_t pid, OnEnd on_end) {
    auto made = std::make_unique<Process>(Passkey{});
    made->self_ = std::make_shared<Process*>(made.get());
    made->pidfd_ = Fd(open_pidfd(pid));
    if (!made->pidfd_) return fail_errno(Kind::not_found, fmt::format("there is no process {}", pid));
    made->pid_ = pid;
    made->on_end_ = std::move(on_end);
    made->watch_ = std::make_unique<Watch>(loop, made->pidfd_.get(), UV_READABLE, [self = made->self_, pid] {
        if (*self == nullptr) return;
        int status = 0;
        Ending ending;
        if (::waitpid(pid, &status, WNOHANG) == pid) {
            if (WIFEXITED(status)) ending.code = WEXITSTATUS(status);
            if (WIFSIGNALED(status)) ending.signal = WTERMSIG(status);
        }
        (*self)->finish(ending);
    });
    return made;
}

Process::~Process() {
    if (self_) *self_ = nullptr;
}

void Process::send(int signal) {
    if (ended_ || !pidfd_) return;
    ::syscall(SYS_pidfd_send_signal, pidfd_.get(), signal, nullptr, 0);
}

void Process::finish(Ending ending) {
    ended_ = true;
    watch_.reset();
    if (auto on_end = std::move(on_end_)) on_end(ending);
}

namespace {

struct Stat {
    pid_t parent = 0;
    pid_t session = 0;
    uint64_t start_time = 0;
    bool has_ended = false;
};

// Fields 3, 4, 6 and 22 of /proc/PID/stat; the name before them may hold anything, so count from its end.
std::optional<Stat> stat_of(pid_t pid) {
    auto text = read_file(fmt::format("/proc/{}/stat", pid), 4096);
    if (!text) return {};
    const size_t end_of_name = text->rfind(')');
    if (end_of_name == std::string::npos) return {};
    Stat stat;
    int field = 3;
    size_t at = end_of_name + 2;
    stat.has_ended = at < text->size() && ((*text)[at] == 'Z' || (*text)[at] == 'X');
    while (at < text->size()) {
        size_t end = text->find(' ', at);
        if (end == std::string::npos) end = text->size();
        uint64_t number = 0;
        std::from_chars(text->data() + at, text->data() + end, number);
        if (field == 4) stat.parent = static_cast<pid_t>(number);
        if (field == 6) stat.session = static_cast<pid_t>(number);
        if (field == 22) {
            stat.start_time = number;
            return stat;
        }
        at = end + 1;
        ++field;
    }
    return {};
}

std::map<pid_t, Stat> all_stats() {
    std::map<pid_t, Stat> found;
    DIR* folder = ::opendir("/proc");
    if (folder == nullptr) return found;
    while (const dirent* entry = ::readdir(folder)) {
        const pid_t pid = static_cast<pid_t>(std::strtol(entry->d_name, nullptr, 10));
        if (pid <= 0) continue;
        if (auto stat = stat_of(pid)) found[pid] = *stat;
    }
    ::closedir(folder);
    return found;
}

}  // namespace

std::optional<uint64_t> start_time_of(pid_t pid) {
    auto stat = stat_of(pid);
    if (!stat) return {};
    return stat->start_time;
}

std::vector<pid_t> all_processes() {
    std::vector<pid_t> pids;
    for (const auto& [pid, stat] : all_stats()) pids.push_back(pid);
    return pids;
}

PidUse use_of(pid_t pid) {
    if (const auto stat = stat_of(pid)) return stat->has_ended ? PidUse::ended : PidUse::taken;
    if (pid <= 1 || (::kill(-pid, 0) != 0 && errno == ESRCH)) return PidUse::free;
    const auto all = all_stats();
    const bool is_lived_in = std::ranges::any_of(all, [pid](const auto& entry) { return entry.second.session == pid && !entry.second.has_ended; });
    return is_lived_in ? PidUse::taken : PidUse::ended;
}

std::vector<pid_t> process_tree(pid_t root) {
    std::vector<pid_t> tree{root};
    const auto all = all_stats();
    for (size_t i = 0; i < tree.size(); ++i) {
        for (const auto& [pid, stat] : all) {
            if (stat.parent == tree[i] && std::ranges::find(tree, pid) == tree.end()) tree.push_back(pid);
        }
    }
    return tree;
}

std::vector<pid_t> session_members(pid_t leader) {
    std::vector<pid_t> members;
    for (const auto& [pid, stat] : all_stats()) {
        if (stat.session == leader) members.push_back(pid);
    }
    return members;
}

uint64_t memory_of(const std::vector<pid_t>& pids) {
    uint64_t sum = 0;
    for (const pid_t pid : pids) {
        auto text = read_file(fmt::format("/proc/{}/smaps_rollup", pid), 16384);
        if (!text) continue;
        const size_t at = text->find("\nPss:");
        if (at == std::string::npos) continue;
        sum += std::strtoull(text->c_str() + at + 5, nullptr, 10) * 1024;
    }
    return sum;
}

void kill_and_wait(const std::vector<pid_t>& pids, std::chrono::milliseconds time_max) {
    std::vector<Fd> ends;
    for (const pid_t pid : pids) {
        Fd end(open_pidfd(pid));
        ::kill(pid, SIGKILL);
        if (end) ends.push_back(std::move(end));
    }
    const auto deadline = std::chrono::steady_clock::now() + time_max;
    for (const Fd& end : ends) {
        const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
        pollfd wait{end.get(), POLLIN, 0};
        ::poll(&wait, 1, static_cast<int>(std::max<int64_t>(0, left.count())));
    }
}

void reap(const std::vector<pid_t>& pids) {
    for (const pid_t pid : pids) ::waitpid(pid, nullptr, WNOHANG);
}

void kill_session(pid_t leader) {
    if (leader <= 1) return;
    for (const pid_t pid : session_members(leader)) ::kill(pid, SIGKILL);
}

}  // namespace torpor
