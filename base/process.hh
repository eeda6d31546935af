// Child processes, from the loop's thread only.
#pragma once

#include "base/error.hh"
#include "base/event_loop.hh"
#include "base/fd.hh"

#include <sys/types.h>

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace torpor {

// How a process ended: an exit code, or the signal that killed it.
struct Ending {
    int code = 0;
    int signal = 0;

    bool is_success() const { return code == 0 && signal == 0; }
    // "exited with status 1", "was killed by signal 9 (Killed)"
    std::string text() const;
};

struct SpawnOptions {
    std::vector<std::string> argv;         // argv[0] is the file, looked for on PATH
    std::vector<std::string> environment;  // "NAME=value"; the child gets these and nothing else
    std::string working_folder = {};       // empty: ours
    int output = -1;                       // becomes descriptors 1 and 2; -1: /dev/null
    std::vector<int> inherited = {};       // become descriptors 3, 4, ...
    bool own_session = false;              // setsid
};

// A process that we started, or one that was found by its pid. `on_end` is called once, on the loop, when
// it has ended; not after the object is destroyed. Destroying it does not end the process.
class Process {
    struct Passkey {};

  public:
    using OnEnd = std::function<void(Ending)>;

    static Result<std::unique_ptr<Process>> spawn(EventLoop& loop, const SpawnOptions& options, OnEnd on_end);

    // Watches a process that already runs. If it is our child it is reaped when it ends; if not, its
    // ending is not known and given as {0, 0}, and reap() is for when it becomes ours. Fails with `not_found` if there is
    // none.
    static Result<std::unique_ptr<Process>> watch(EventLoop& loop, pid_t pid, OnEnd on_end);

    explicit Process(Passkey) {}  // use spawn() or watch()
    ~Process();
    Process(const Process&) = delete;
    Process& operator=(const Process&) = delete;

    pid_t pid() const { return pid_; }
    bool has_ended() const { return ended_; }
    // Sends a signal to this very process, never to a later one with the same pid.
    void send(int signal);

  private:
    void finish(Ending ending);

    pid_t pid_ = 0;
    bool ended_ = false;
    OnEnd on_end_;
    Fd pidfd_;
    std::unique_ptr<Watch> watch_;
    std::shared_ptr<Process*> self_;  // emptied when destroyed; libuv's callbacks look here
};

// Clock ticks since boot at which the process started, from /proc; with the pid it names one process for
// good. Nothing if there is no such process.
std::optional<uint64_t> start_time_of(pid_t pid);

// Every process there is.
std::vector<pid_t> all_processes();

// Whether a new process could have this number. It is `taken` by a process or thread, or by a session whose leader it
// was and that others live on in; `ended`: only by those that wait for their parents to reap them. Microseconds where
// it is free.
enum class PidUse { free, ended, taken };
PidUse use_of(pid_t pid);

// The process and all that descend from it, parents first.
std::vector<pid_t> process_tree(pid_t root);

// The members of the session that `leader` leads, including those whose parent has died.
std::vector<pid_t> session_members(pid_t leader);

// Proportional set size of all these processes, in bytes.
uint64_t memory_of(const std::vector<pid_t>& pids);

// SIGKILL to all of them, and waits until they have ended, but not longer than `time_max`. For the start, before the
// loop runs.
void kill_and_wait(const std::vector<pid_t>& pids, std::chrono::milliseconds time_max);

// Reaps those of them that have ended and are our children by now: the child of a process that ends after it becomes ours
// only then, and nobody tells us.
void reap(const std::vector<pid_t>& pids);

// SIGKILL to all members of the session; those of our own children that died of it are reaped.
void kill_session(pid_t leader);

}  // namespace torpor
