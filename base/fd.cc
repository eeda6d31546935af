#include "base/fd.hh"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

namespace torpor {

void Fd::reset() {
    if (number_ >= 0) ::close(std::exchange(number_, -1));
}

Result<std::string> read_file(const std::filesystem::path& path, size_t bytes_max) {
    Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!fd) {
        const Kind kind = errno == ENOENT ? Kind::not_found : Kind::internal;
        return fail_errno(kind, fmt::format("cannot read {}", path.string()));
    }
    std::string text;
    char buffer[16384];
    for (;;) {
        const ssize_t count = ::read(fd.get(), buffer, sizeof buffer);
        if (count < 0 && errno == EINTR) continue;
        if (count < 0) return fail_errno(Kind::internal, fmt::format("cannot read {}", path.string()));
        if (count == 0) return text;
        if (text.size() + static_cast<size_t>(count) > bytes_max) {
            return fail(Kind::too_large, "{} is larger than {} bytes", path.string(), bytes_max);
        }
        text.append(buffer, static_cast<size_t>(count));
    }
}

std::string read_tail(const std::filesystem::path& path, size_t bytes_max) {
    Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!fd) return {};
    const off_t size = ::lseek(fd.get(), 0, SEEK_END);
    const off_t start = size > static_cast<off_t>(bytes_max) ? size - static_cast<off_t>(bytes_max) : 0;
    std::string text(static_cast<size_t>(size < 0 ? 0 : size - start), '\0');
    const ssize_t count = ::pread(fd.get(), text.data(), text.size(), start);
    text.resize(count < 0 ? 0 : static_cast<size_t>(count));
    return text;
}

Result<void> sync_path(const std::filesystem::path& path) {
    Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!fd || ::fsync(fd.get()) != 0) {
        return fail_errno(Kind::internal, fmt::format("cannot write {} to disk", path.string()));
    }
    return {};
}

Result<void> write_all(int fd, std::string_view bytes, int timeout_ms) {
    while (!bytes.empty()) {
        const ssize_t count = ::write(fd, bytes.data(), bytes.size());
        if (count >= 0) {
            bytes.remove_prefix(static_cast<size_t>(count));
            continue;
        }
        if (errno == EINTR) continue;
        if (errno != EAGAIN) return fail_errno(Kind::internal, "cannot write");
        pollfd wait{fd, POLLOUT, 0};
        if (::poll(&wait, 1, timeout_ms) == 0) return fail(Kind::timeout, "nobody read for {} ms", timeout_ms);
    }
    return {};
}

Result<void> write_file_atomically(const std::filesystem::path& path, std::string_view text, int mode) {
    const std::filesystem::path beside = path.string() + ".new";
    Fd fd(::open(beside.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, mode));
    if (!fd) return fail_errno(Kind::internal, fmt::format("cannot create {}", beside.string()));
    auto written = write_all(fd.get(), text, 0);
    if (written && ::fsync(fd.get()) != 0) {
        written = fail_errno(Kind::internal, fmt::format("cannot write {} to disk", beside.string()));
    }
    if (written && ::rename(beside.c_str(), path.c_str()) != 0) {
        written = fail_errno(Kind::internal, fmt::format("cannot rename {} to {}", beside.string(), path.string()));
    }
    if (!written) {
        ::unlink(beside.c_str());
        return written;
    }
    return sync_path(path.parent_path());
}

Result<void> make_private_folder(const std::filesystem::path& path) {
    std::error_code code;
    if (path.has_parent_path()) std::filesystem::create_directories(path.parent_path(), code);
    if (::mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) {
        return fail_errno(Kind::internal, fmt::format("cannot make the folder {}", path.string()));
    }
    struct stat info{};
    if (::lstat(path.c_str(), &info) != 0) {
        return fail_errno(Kind::internal, fmt::format("cannot look at {}", path.string()));
    }
    if (!S_ISDIR(info.st_mode)) {
        return fail(Kind::refused, "{} is not a folder; move it out of the way", path.string());
    }
    if (info.st_uid != ::geteuid()) {
        return fail(Kind::refused, "{} belongs to another user (uid {}); set TORPOR_DIR to a folder of your own",
                    path.string(), info.st_uid);
    }
    if ((info.st_mode & 0077) != 0 && ::chmod(path.c_str(), 0700) != 0) {
        return fail_errno(Kind::refused, fmt::format("{} can be entered by others", path.string()));
    }
    return {};
}

}  // namespace torpor
