#include "clients/cli/standard_input.hh"

#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cstdio>

namespace torpor::cli {

namespace {

constexpr size_t context_bytes_max = 8 * 1024 * 1024;  // more than any model takes
constexpr int silence_ms = 3000;                       // before we say that we wait for it

}  // namespace

Result<std::string> read_standard_input() {
    struct stat info{};
    if (::fstat(STDIN_FILENO, &info) != 0 || !(S_ISFIFO(info.st_mode) || S_ISREG(info.st_mode))) return {};
    pollfd wait{STDIN_FILENO, POLLIN, 0};
    if (::poll(&wait, 1, silence_ms) == 0) std::fputs("torpor: waiting for standard input to end (or add </dev/null)\n", stderr);
    std::string text;
    std::array<char, 16 * 1024> piece;
    for (;;) {
        const ssize_t count = ::read(STDIN_FILENO, piece.data(), piece.size());
        if (count < 0) return fail_errno(Kind::invalid, "standard input cannot be read");
        if (count == 0) return text;
        text.append(piece.data(), static_cast<size_t>(count));
        if (text.size() > context_bytes_max) {
            return fail(Kind::too_large, "standard input holds more than {} bytes", context_bytes_max);
        }
    }
}

}  // namespace torpor::cli
