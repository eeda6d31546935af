#include "gpu/shared_files.hh"

#include "base/fd.hh"
#include "base/process.hh"

#include <fcntl.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <set>
#include <sstream>
#include <string>

namespace torpor::gpu {

namespace {

namespace fs = std::filesystem;

const fs::path shared_folder = "/dev/shm";
constexpr std::string_view prefix = "shm-";
constexpr size_t maps_bytes_max = 16 * 1024 * 1024;

using FileId = std::pair<dev_t, ino_t>;

// Every file that these processes have open or mapped, by device and inode: an unlinked one has no other name. (What is
// mapped is not asked of /proc/PID/map_files, whose links only root and CRIU may follow.)
std::set<FileId> files_of(const std::vector<pid_t>& pids) {
    std::set<FileId> ids;
    for (const pid_t pid : pids) {
        std::error_code code;
        for (fs::directory_iterator at(fmt::format("/proc/{}/fd", pid), code), end; !code && at != end; at.increment(code)) {
            struct stat info{};
            if (::stat(at->path().c_str(), &info) == 0) ids.emplace(info.st_dev, info.st_ino);
        }
        std::istringstream maps(read_file(fmt::format("/proc/{}/maps", pid), maps_bytes_max).value_or(""));
        for (std::string line; std::getline(maps, line);) {
            unsigned major = 0, minor = 0;
            FileId id;
            const bool is_read = std::sscanf(line.c_str(), "%*s %*s %*s %x:%x %lu", &major, &minor, &id.second) == 3;
            id.first = makedev(major, minor);
            if (is_read && id.second != 0) ids.insert(id);
        }
    }
    return ids;
}

Result<void> copy_shared(const fs::path& from, const fs::path& to) {
    Fd source(::open(from.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
    struct stat info{};
    if (!source || ::fstat(source.get(), &info) != 0) return fail_errno(Kind::internal, fmt::format("cannot read {}", from.string()));
    Fd target(::open(to.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, info.st_mode & 0777));
    if (!target) {
        return fail_errno(errno == EEXIST ? Kind::conflict : Kind::internal, fmt::format("cannot create {}", to.string()));
    }
    ::fchmod(target.get(), info.st_mode & 0777);
    // Piece by piece between its holes: an engine's ring buffer is hundreds of megabytes of which it has written some pages.
    for (off_t at = 0, end = 0; (at = ::lseek(source.get(), end, SEEK_DATA)) >= 0;) {
        end = ::lseek(source.get(), at, SEEK_HOLE);
        ::lseek(target.get(), at, SEEK_SET);
        while (at < end) {
            const ssize_t count = ::sendfile(target.get(), source.get(), &at, static_cast<size_t>(end - at));
            if (count < 0 && errno == EINTR) continue;
            if (count <= 0) return fail_errno(Kind::internal, fmt::format("cannot copy {}", from.string()));
        }
    }
    if (errno != ENXIO || ::ftruncate(target.get(), info.st_size) != 0) {
        return fail_errno(Kind::internal, fmt::format("cannot copy {}", from.string()));
    }
    return {};
}

}  // namespace

std::vector<std::string> shared_files_in(const fs::path& image) {
    std::vector<std::string> names;
    std::error_code code;
    for (fs::directory_iterator at(image, code), end; !code && at != end; at.increment(code)) {
        const std::string name = at->path().filename();
        if (name.starts_with(prefix)) names.push_back(name.substr(prefix.size()));
    }
    return names;
}

Result<void> keep_shared_files(pid_t leader, const fs::path& image) {
    const std::set<FileId> ids = files_of(process_tree(leader));
    std::error_code code;
    for (fs::directory_iterator at(shared_folder, code), end; !code && at != end; at.increment(code)) {
        struct stat info{};
        if (::lstat(at->path().c_str(), &info) != 0 || !S_ISREG(info.st_mode) || !ids.contains({info.st_dev, info.st_ino})) continue;
        const std::string name = at->path().filename();
        if (auto copied = copy_shared(at->path(), image / (std::string(prefix) + name)); !copied) return copied;
    }
    return {};
}

Result<void> lay_out_shared_files(const fs::path& image) {
    std::vector<fs::path> laid_out;
    for (const std::string& name : shared_files_in(image)) {
        if (auto copied = copy_shared(image / (std::string(prefix) + name), shared_folder / name); !copied) {
            for (const fs::path& file : laid_out) ::unlink(file.c_str());
            return copied;
        }
        laid_out.push_back(shared_folder / name);
    }
    return {};
}

void remove_shared_files(const fs::path& image) {
    remove_shared_files(shared_files_in(image));
}

std::vector<std::string> shared_files_of(const std::vector<pid_t>& pids, std::chrono::system_clock::time_point since) {
    std::vector<std::string> names;
    std::set<FileId> ids;
    std::error_code code;
    for (fs::directory_iterator at(shared_folder, code), end; !code && at != end; at.increment(code)) {
        struct stat info{};
        if (::lstat(at->path().c_str(), &info) != 0 || !S_ISREG(info.st_mode)) continue;
        if (info.st_ctim.tv_sec < std::chrono::system_clock::to_time_t(since)) continue;
        if (ids.empty()) ids = files_of(pids);
        if (ids.contains({info.st_dev, info.st_ino})) names.push_back(at->path().filename());
    }
    return names;
}

void remove_shared_files(const std::vector<std::string>& names) {
    if (names.empty()) return;
    const std::set<FileId> in_use = files_of(all_processes());
    for (const std::string& name : names) {
        struct stat info{};
        const fs::path file = shared_folder / name;
        if (::lstat(file.c_str(), &info) == 0 && !in_use.contains({info.st_dev, info.st_ino})) ::unlink(file.c_str());
    }
}

}  // namespace torpor::gpu
