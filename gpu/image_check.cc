#include "gpu/image_check.hh"

#include "base/fd.hh"

#include <fcntl.h>
#include <unistd.h>
#include <xxhash.h>

#include <map>
#include <memory>
#include <set>
#include <sstream>
#include <vector>

namespace torpor::gpu {

namespace {

namespace fs = std::filesystem;

constexpr size_t piece_bytes = 1024 * 1024;

std::set<std::string> names_in(const fs::path& image) {
    std::set<std::string> names;
    std::error_code code;
    for (fs::directory_iterator at(image, code), end; !code && at != end; at.increment(code)) names.insert(at->path().filename());
    return names;
}

ImagePart part_of(const std::string& name) {
    const bool is_memory = name.starts_with("pages-") || name.starts_with("shm-");  // shared_files.hh
    return is_memory ? ImagePart::pages : ImagePart::lists;
}

}  // namespace

Result<std::string> checksum_of(const fs::path& file) {
    Fd fd(::open(file.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
    if (!fd) return fail_errno(Kind::internal, fmt::format("cannot read {}", file.string()));
    ::posix_fadvise(fd.get(), 0, 0, POSIX_FADV_SEQUENTIAL);
    const std::unique_ptr<XXH3_state_t, decltype(&XXH3_freeState)> state(XXH3_createState(), XXH3_freeState);
    XXH3_128bits_reset(state.get());
    std::vector<char> piece(piece_bytes);
    uint64_t size = 0;
    for (;;) {
        const ssize_t count = ::read(fd.get(), piece.data(), piece.size());
        if (count < 0 && errno == EINTR) continue;
        if (count < 0) return fail_errno(Kind::internal, fmt::format("cannot read {}", file.string()));
        if (count == 0) break;
        XXH3_128bits_update(state.get(), piece.data(), static_cast<size_t>(count));
        size += static_cast<uint64_t>(count);
    }
    const XXH128_hash_t hash = XXH3_128bits_digest(state.get());
    return fmt::format("{:016x}{:016x} {}", hash.high64, hash.low64, size);
}

Result<std::string> take_checksums(const fs::path& image) {
    std::string lines;
    for (const std::string& name : names_in(image)) {
        auto sum = checksum_of(image / name);
        if (!sum) return sum;
        lines += fmt::format("image {} {}\n", *sum, name);
    }
    return lines;
}

std::optional<std::string> why_damaged(const fs::path& image, const std::string& fingerprint, ImagePart part) {
    std::map<std::string, std::string> expected;
    std::istringstream lines(fingerprint);
    constexpr std::string_view start = "image ";
    for (std::string line; std::getline(lines, line);) {
        if (!line.starts_with(start)) continue;
        const size_t name = line.find(' ', line.find(' ', start.size()) + 1);
        if (name != std::string::npos) expected[line.substr(name + 1)] = line.substr(start.size(), name - start.size());
    }
    if (expected.empty()) return "it has no checksums";
    std::set<std::string> names = names_in(image);
    for (const auto& [name, sum] : expected) names.insert(name);
    for (const std::string& name : names) {
        const auto known = expected.find(name);
        if (known == expected.end()) return fmt::format("{} is none of its files", name);
        if (part_of(name) != part) continue;
        const auto found = checksum_of(image / name);
        if (!found) return found.error().text();
        if (*found != known->second) return fmt::format("{} is not as it was written", name);
    }
    return {};
}

}  // namespace torpor::gpu
