#include "base/open_files.hh"

#include <sys/resource.h>

namespace torpor {

namespace {

uint64_t soft_limit() {
    rlimit limit{};
    ::getrlimit(RLIMIT_NOFILE, &limit);
    return limit.rlim_cur;
}

uint64_t at_start = 0;  // 0: not raised

}  // namespace

void raise_open_files() {
    rlimit limit{};
    if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
    at_start = limit.rlim_cur;
    limit.rlim_cur = limit.rlim_max;
    ::setrlimit(RLIMIT_NOFILE, &limit);
}

uint64_t open_files_max() {
    return soft_limit();
}

uint64_t open_files_at_start() {
    return at_start != 0 ? at_start : soft_limit();
}

}  // namespace torpor
