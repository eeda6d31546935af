#include "gpu/pressure.hh"

#include "gpu/limits.hh"

#include <fcntl.h>
#include <unistd.h>

#include <string>

namespace torpor::gpu {

Result<std::unique_ptr<Pressure>> Pressure::watch(EventLoop& loop, const std::filesystem::path& file, std::function<void()> on_short) {
    Fd fd(::open(file.c_str(), O_RDWR | O_NONBLOCK | O_CLOEXEC));
    if (!fd) return fail_errno(Kind::unavailable, fmt::format("{} cannot be opened", file.string()));
    const auto microseconds = [](auto duration) { return std::chrono::microseconds(duration).count(); };
    const std::string trigger = fmt::format("some {} {}", microseconds(pressure_stall), microseconds(pressure_window));
    if (::write(fd.get(), trigger.c_str(), trigger.size() + 1) < 0) {
        return fail_errno(Kind::unavailable, fmt::format("{} takes no trigger", file.string()));
    }
    return std::make_unique<Pressure>(loop, std::move(fd), std::move(on_short));
}

Pressure::Pressure(EventLoop& loop, Fd file, std::function<void()> on_short)
    : file_(std::move(file)), watch_(loop, file_.get(), UV_PRIORITIZED, std::move(on_short)) {}

std::vector<std::filesystem::path> pressure_files() {
    std::vector<std::filesystem::path> files{"/proc/pressure/memory"};
    const std::string memberships = read_file("/proc/self/cgroup", 64 * 1024).value_or("");
    const size_t at = memberships.find("0::/");
    if (at != 0 && (at == std::string::npos || memberships[at - 1] != '\n')) return files;
    const std::string below = memberships.substr(at + 4, memberships.find('\n', at) - at - 4);
    const auto own = std::filesystem::path("/sys/fs/cgroup") / below / "memory.pressure";
    std::error_code code;
    if (!below.empty() && std::filesystem::exists(own, code)) files.push_back(own);
    return files;
}

}  // namespace torpor::gpu
