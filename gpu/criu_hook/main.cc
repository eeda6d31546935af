// torpor-criu-hook: see README.md beside this file.
#include "gpu/shared_files.hh"

#include <cstdio>
#include <cstdlib>
#include <string_view>

int main() {
    const char* action = std::getenv("CRTOOLS_SCRIPT_ACTION");
    if (action == nullptr || std::string_view(action) != "post-dump") return 0;
    const char* leader = std::getenv("CRTOOLS_INIT_PID");
    const char* image = std::getenv(torpor::gpu::image_variable);
    if (leader == nullptr || image == nullptr) {
        std::fputs("torpor-criu-hook: CRIU does not say what it dumps\n", stderr);
        return 1;
    }
    const auto kept = torpor::gpu::keep_shared_files(std::atoi(leader), image);
    if (kept) return 0;
    std::fprintf(stderr, "torpor-criu-hook: %s\n", kept.error().text().c_str());
    return 1;
}
