#include "store/folder_lock.hh"

#include "store/limits.hh"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstdio>

namespace torpor::store {

namespace {

struct FilesystemRow {
    unsigned long type;
    std::string_view name;
};

// Not 9p: virtual machines and sandboxes share their local disks by it. Not FUSE: most of it is local.
constexpr std::array<FilesystemRow, 10> network_filesystems{{
    {0x6969, "NFS"},
    {0xff534d42, "CIFS"},
    {0xfe534d42, "SMB2"},
    {0x517b, "SMB"},
    {0x73757245, "Coda"},
    {0x5346414f, "AFS"},
    {0x00c36400, "Ceph"},
    {0x0bd00bd0, "Lustre"},
    {0x47504653, "GPFS"},
    {0x19830326, "BeeGFS"},
}};

// What is in the lock's file, if it is a pid: empty while its holder has not written it yet.
std::string read_pid(int fd) {
    char buffer[16];
    const ssize_t count = ::pread(fd, buffer, sizeof buffer, 0);
    std::string_view text(buffer, count > 0 ? static_cast<size_t>(count) : 0);
    text = text.substr(0, text.find('\n'));
    return text.find_first_not_of("0123456789") == text.npos ? std::string(text) : std::string();
}

// One that was killed keeps its lock for a moment after its socket is gone. Field 9 of /proc/PID/stat are the kernel's
// flags; PF_EXITING is 4 (linux/sched.h).
bool is_ending(const std::string& pid) {
    if (pid.empty()) return true;  // just starting or ending
    const auto stat = read_file("/proc/" + pid + "/stat", 4096);
    if (!stat) return true;
    char state = 0;
    unsigned flags = 0;
    const size_t name_end = stat->rfind(')');
    if (name_end == std::string::npos ||
        std::sscanf(stat->c_str() + name_end + 1, " %c %*d %*d %*d %*d %*d %u", &state, &flags) != 2) {
        return false;
    }
    constexpr unsigned exiting = 4;
    return state == 'Z' || state == 'X' || (flags & exiting) != 0;
}

}  // namespace

Result<FolderLock> FolderLock::take(const std::filesystem::path& folder) {
    const std::filesystem::path path = folder / "torpor.lock";
    // CLOEXEC: a worker that outlives the daemon must not keep the folder locked.
    Fd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
    if (!fd) return fail_errno(Kind::internal, fmt::format("cannot open {}", path.string()));
    const auto deadline = std::chrono::steady_clock::now() + lock_handover_max;
    while (::flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
        if (errno == EINTR) continue;
        if (errno != EWOULDBLOCK) return fail_errno(Kind::internal, fmt::format("cannot lock {}", path.string()));
        const std::string pid = read_pid(fd.get());
        if (is_ending(pid) && std::chrono::steady_clock::now() < deadline) {
            constexpr useconds_t gap_us = 2'000;  // flock has no deadline of its own
            ::usleep(gap_us);
            continue;
        }
        return fail(Kind::conflict, "another torpord ({}) uses this folder: {}",
                    pid.empty() ? "just starting or ending" : "pid " + pid, folder.string());
    }
    const std::string text = fmt::format("{}\n", ::getpid());
    if (::ftruncate(fd.get(), 0) != 0 || ::pwrite(fd.get(), text.data(), text.size(), 0) < 0) {
        return fail_errno(Kind::internal, fmt::format("cannot write {}", path.string()));
    }
    return FolderLock(std::move(fd));
}

FolderLock::~FolderLock() {
    if (!fd_) return;
    // No pid stays behind that later belongs to somebody else; a failure harms nobody.
    static_cast<void>(::ftruncate(fd_.get(), 0) == 0);
}

std::string_view network_filesystem(unsigned long type) {
    for (const FilesystemRow& row : network_filesystems) {
        if (row.type == type) return row.name;
    }
    return {};
}

Result<void> check_local_disk(const std::filesystem::path& folder) {
    struct statfs info{};
    if (::statfs(folder.c_str(), &info) != 0) {
        return fail_errno(Kind::internal, fmt::format("cannot look at {}", folder.string()));
    }
    // 32 bits: f_type is signed and the larger numbers come out negative where long has 32 bits.
    const std::string_view name = network_filesystem(static_cast<unsigned long>(info.f_type) & 0xffffffff);
    if (name.empty()) return {};
    return fail(Kind::refused,
                "{} is on a network filesystem ({}), which can damage the database; set XDG_STATE_HOME or "
                "TORPOR_DIR to a folder on a local disk",
                folder.string(), name);
}

}  // namespace torpor::store
