// CRIU as a program: every call has a deadline, and what it leaves half made is killed.
// Options and their reasons: https://criu.org/CLI and docs/snapshots.md.
#pragma once

#include "base/event_loop.hh"
#include "base/process.hh"
#include "gpu/criu_rights.hh"

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>

namespace torpor::gpu {

struct CriuTool {
    std::string program;      // empty: not to be had
    std::string hook;         // torpor-criu-hook
    std::string why_not;      // one line for people when the tier is not offered
    std::optional<CriuGrant> grant = {};  // and how root can mend that, if rights are all that is missing
    bool is_unprivileged = false;         // torpord is not root, and criu has rights of its own
    bool is_folder_ours = true;  // that of the images; else what lies in it is neither trusted nor touched
    bool is_offered() const { return why_not.empty(); }
};

// Takes the criu in data/criu/, which the set-up built, else one of 4.1 or newer on PATH; a plain user's is the copy
// that root made of it, see criu_rights.hh. Asks `criu check` whether it can work here, which blocks for tens of
// milliseconds. That it was content is remembered in the file
// `memory` until criu, the kernel, the user or the boot is another.
CriuTool find_criu(const std::filesystem::path& data_folder, const std::filesystem::path& memory);

// An error of the kind `cancelled`: criu was killed at work, and what it worked on cannot be trusted.
using OnDone = std::function<void(Result<void>)>;

// One dump or restore under way. Destroying it does not end it; loop thread only.
class CriuCall {
  public:
    // Writes `pid` and its descendants into `image`; they go on running.
    static Result<std::unique_ptr<CriuCall>> dump(EventLoop& loop, const CriuTool& tool, pid_t pid,
                                                  const std::filesystem::path& image, OnDone on_done);
    // Makes the processes anew from `image`, as children of this one, writing to `log` from now on.
    static Result<std::unique_ptr<CriuCall>> restore(EventLoop& loop, const CriuTool& tool,
                                                     const std::filesystem::path& image, int log_fd,
                                                     const std::filesystem::path& log_path, OnDone on_done);

    CriuCall(EventLoop& loop, std::filesystem::path criu_log, OnDone on_done);
    // Ends criu itself.
    void kill();

  private:
    static Result<std::unique_ptr<CriuCall>> run(EventLoop& loop, SpawnOptions options, std::filesystem::path criu_log,
                                                 std::chrono::milliseconds time_max, OnDone on_done);

    std::unique_ptr<Process> process_;
    Timer deadline_;
    bool timed_out_ = false;
    std::filesystem::path criu_log_;
    OnDone on_done_;
};

}  // namespace torpor::gpu
