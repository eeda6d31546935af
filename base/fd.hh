// A file descriptor that closes itself, and the few file operations that every room needs.
#pragma once

#include "base/error.hh"

#include <cstddef>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>

namespace torpor {

// Owns one descriptor; -1 when empty. Movable, not copyable.
class Fd {
  public:
    Fd() = default;
    explicit Fd(int number) : number_(number) {}
    Fd(Fd&& other) noexcept : number_(std::exchange(other.number_, -1)) {}
    Fd& operator=(Fd&& other) noexcept {
        if (this != &other) {
            reset();
            number_ = std::exchange(other.number_, -1);
        }
        return *this;
    }
    ~Fd() { reset(); }

    int get() const { return number_; }
    explicit operator bool() const { return number_ >= 0; }
    int release() { return std::exchange(number_, -1); }
    void reset();

  private:
    int number_ = -1;
};

// The whole file, refused with `too_large` past bytes_max.
Result<std::string> read_file(const std::filesystem::path& path, size_t bytes_max);

// Up to bytes_max bytes from the file's end; empty when it cannot be read.
std::string read_tail(const std::filesystem::path& path, size_t bytes_max);

// Writes beside, fsyncs, renames and fsyncs the folder: after a crash either the old or the new is there.
Result<void> write_file_atomically(const std::filesystem::path& path, std::string_view text, int mode);

// Makes the folder and its parents 0700 and proves that it is ours and nobody else's to write.
// Refuses a symbolic link at its end, another owner, or write permission for group or others.
Result<void> make_private_folder(const std::filesystem::path& path);

// fsync of a file or folder by path.
Result<void> sync_path(const std::filesystem::path& path);

// Writes all, retrying on EINTR and, for a non-blocking descriptor, waiting at most timeout_ms for room.
Result<void> write_all(int fd, std::string_view bytes, int timeout_ms);

}  // namespace torpor
