#include "gpu/worker_log.hh"

#include "base/text.hh"
#include "gpu/limits.hh"

#include <fcntl.h>
#include <unistd.h>

namespace torpor::gpu {

Result<Fd> open_worker_log(const std::filesystem::path& path) {
    Fd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600));
    if (!fd) return fail_errno(Kind::internal, fmt::format("cannot open {}", path.string()));
    return fd;
}

uint64_t size_of(const std::filesystem::path& path) {
    std::error_code code;
    const auto size = std::filesystem::file_size(path, code);
    return code ? 0 : size;
}

void rotate_worker_log(const std::filesystem::path& path) {
    if (size_of(path) <= worker_log_bytes_max) return;
    std::error_code code;
    std::filesystem::copy_file(path, path.string() + ".1", std::filesystem::copy_options::overwrite_existing, code);
    (void)!::truncate(path.c_str(), 0);
}

std::string last_words(const std::filesystem::path& path, uint64_t offset) {
    const uint64_t size = size_of(path);
    const uint64_t fresh = size > offset ? size - offset : 0;
    return last_lines(read_tail(path, std::min<uint64_t>(fresh, last_words_bytes_max)), last_words_lines_max);
}

}  // namespace torpor::gpu
