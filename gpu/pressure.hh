// The kernel's word that memory is short: tasks stood still for want of it. It comes well before anything is killed, and
// counts what all programs take, not only workers.
// Format: https://docs.kernel.org/accounting/psi.html ("Monitoring for pressure thresholds").
#pragma once

#include "base/error.hh"
#include "base/event_loop.hh"
#include "base/fd.hh"

#include <filesystem>
#include <functional>
#include <memory>
#include <vector>

namespace torpor::gpu {

// Loop thread. Calls `on_short` each time the file says so; the kernel says it once in pressure_window at most.
class Pressure {
  public:
    // Sets the trigger in a file like /proc/pressure/memory.
    static Result<std::unique_ptr<Pressure>> watch(EventLoop& loop, const std::filesystem::path& file, std::function<void()> on_short);

    // `file`: whatever poll(2) says POLLPRI of.
    Pressure(EventLoop& loop, Fd file, std::function<void()> on_short);

  private:
    Fd file_;
    Watch watch_;
};

// The machine's file, and that of this process's own cgroup where it has one (version 2): a limit there is felt there.
std::vector<std::filesystem::path> pressure_files();

}  // namespace torpor::gpu
