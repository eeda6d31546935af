#include "gpu/criu_rights.hh"

#include "base/fd.hh"
#include "base/text.hh"

#include <grp.h>
#include <linux/capability.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <sstream>

#ifndef CAP_CHECKPOINT_RESTORE
#define CAP_CHECKPOINT_RESTORE 40
#endif

namespace torpor::gpu {

namespace {

constexpr size_t status_bytes_max = 64 * 1024;

struct Row {
    int number;
    std::string_view name;
};
constexpr std::array<Row, 3> rows{{{CAP_CHECKPOINT_RESTORE, "cap_checkpoint_restore"},
                                   {CAP_SETPCAP, "cap_setpcap"},
                                   {CAP_SYS_PTRACE, "cap_sys_ptrace"}}};

constexpr Capabilities bit(int number) {
    return Capabilities{1} << number;
}

// The value of a line "NAME:\tVALUE".
std::string value_in(const std::string& status, std::string_view name) {
    std::istringstream lines(status);
    for (std::string line; std::getline(lines, line);) {
        if (line.starts_with(name) && line.size() > name.size() + 1 && line[name.size()] == ':') return line.substr(name.size() + 2);
    }
    return {};
}

Capabilities capabilities_in(const std::string& status, std::string_view set) {
    return std::strtoull(value_in(status, set).c_str(), nullptr, 16);
}

std::string status_of(std::string_view process) {
    return read_file(fmt::format("/proc/{}/status", process), status_bytes_max).value_or("");
}

// 0 where there is no such setting.
int setting_of_kernel(std::string_view name) {
    return std::atoi(read_file(fmt::format("/proc/sys/kernel/{}", name), 64).value_or("0").c_str());
}

Capabilities needed_here() {
    return rights_needed(status_of("self"), setting_of_kernel("cap_last_cap"), setting_of_kernel("yama/ptrace_scope"));
}

std::string own_group() {
    const gid_t number = ::getegid();
    std::array<char, 16 * 1024> space{};  // a group's members are in it
    group entry{};
    group* found = nullptr;
    const bool is_known = ::getgrgid_r(number, &entry, space.data(), space.size(), &found) == 0 && found != nullptr;
    return is_known && is_plain_name(entry.gr_name) ? entry.gr_name : std::to_string(number);
}

}  // namespace

Capabilities rights_needed(const std::string& status, int last, int ptrace_scope) {
    const bool is_whole = capabilities_in(status, "CapBnd") == bit(last + 1) - 1;
    Capabilities needed = bit(CAP_CHECKPOINT_RESTORE);
    if (!is_whole) needed |= bit(CAP_SETPCAP);
    if (ptrace_scope > 0) needed |= bit(CAP_SYS_PTRACE);
    return needed;
}

std::optional<std::string> obstacle_in(const std::string& status, Capabilities needed) {
    if (const Capabilities lack = needed & ~capabilities_in(status, "CapBnd")) {
        return fmt::format("CRIU needs {} here, which nothing that this torpord starts can have (it is not in the bounding "
                           "set; a container is given it by whoever starts it)",
                           names_of(lack));
    }
    if (value_in(status, "NoNewPrivs") == "1") {
        return "nothing that this torpord starts may gain rights (no_new_privs is set), and CRIU needs some where torpord is not root";
    }
    if (const std::string mode = value_in(status, "Seccomp"); !mode.empty() && mode != "0") {
        return "this torpord runs under a seccomp filter, as containers do, and only root's CRIU can dump processes that have one";
    }
    return {};
}

Capabilities rights_in(std::string_view attribute) {
    vfs_cap_data data{};
    if (attribute.size() != sizeof data) return 0;  // an older form has 32 capabilities, a newer one names a namespace
    std::memcpy(&data, attribute.data(), sizeof data);
    const uint32_t magic = le32toh(data.magic_etc);
    const bool is_effective = (magic & VFS_CAP_FLAGS_EFFECTIVE) != 0;
    if ((magic & VFS_CAP_REVISION_MASK) != VFS_CAP_REVISION_2 || !is_effective) return 0;
    return Capabilities{le32toh(data.data[0].permitted)} | Capabilities{le32toh(data.data[1].permitted)} << 32;
}

std::string names_of(Capabilities capabilities) {
    std::string names;
    for (const Row& row : rows) {
        if ((capabilities & bit(row.number)) != 0) names += fmt::format("{}{}", names.empty() ? "" : ",", row.name);
    }
    return names;
}

std::filesystem::path granted_criu() {
    return "/usr/local/lib/torpor/criu-" + own_group();
}

std::optional<std::string> obstacle_to_rights() {
    return obstacle_in(status_of("self"), needed_here());
}

std::string lack_of_rights(const std::string& criu) {
    std::array<char, 256> attribute{};
    const ssize_t size = ::getxattr(criu.c_str(), "security.capability", attribute.data(), attribute.size());
    return names_of(needed_here() & ~rights_in({attribute.data(), static_cast<size_t>(std::max<ssize_t>(size, 0))}));
}

bool has_more_rights(pid_t pid) {
    const std::string status = status_of(std::to_string(pid));
    const std::string user = value_in(status, "Uid");
    if (user.empty() || std::strtoul(user.c_str(), nullptr, 10) != ::geteuid()) return false;
    return (capabilities_in(status, "CapPrm") & ~capabilities_in(status_of("self"), "CapPrm")) != 0;
}

CriuGrant grant_for(const std::string& criu) {
    return grant_for(criu, granted_criu(), own_group(), needed_here());
}

CriuGrant grant_for(const std::string& criu, const std::filesystem::path& place, const std::string& group, Capabilities needed) {
    const std::string to = shell_quoted(place.string());
    std::string script = fmt::format("setcap {}+ep {}", names_of(needed), to);
    if (criu != place) {
        script = fmt::format("install -D -o root -g {} -m 0750 {} {} && {}", group, shell_quoted(criu), to, script);
    }
    std::string gives = fmt::format("Whoever is in the group {} may then give processes of their own any pid, and have them look like another program.", group);
    if ((needed & bit(CAP_SETPCAP)) != 0) {
        gives += " They may start programs, also those that are root's by the setuid bit, with fewer rights than these count on (cap_setpcap: a capability is missing here already).";
    }
    if ((needed & bit(CAP_SYS_PTRACE)) != 0) {
        gives += " AND THEY MAY READ AND TAKE OVER EVERY PROCESS OF THIS MACHINE, ROOT'S TOO: it is as good as being root "
                 "(cap_sys_ptrace; not needed where kernel.yama.ptrace_scope is 0).";
    } else {
        gives += " It gives no right over what other users run.";
    }
    return {"sudo sh -c " + shell_quoted(script), gives};
}

}  // namespace torpor::gpu
