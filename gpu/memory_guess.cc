#include "gpu/model_file.hh"

#include "gpu/limits.hh"

#include <filesystem>

namespace torpor::gpu {

namespace {

namespace fs = std::filesystem;

// A file's size, or that of all files below a folder.
uint64_t bytes_at(const fs::path& path) {
    std::error_code code;
    if (!fs::is_directory(path, code)) {
        const uint64_t size = fs::file_size(path, code);
        return code ? 0 : size;
    }
    uint64_t bytes = 0;
    size_t seen = 0;
    for (fs::recursive_directory_iterator at(path, code), end; !code && at != end && ++seen < weight_files_max; at.increment(code)) {
        std::error_code gone;
        const uint64_t size = fs::is_regular_file(at->path(), gone) ? fs::file_size(at->path(), gone) : 0;
        if (!gone) bytes += size;
    }
    return bytes;
}

}  // namespace

uint64_t memory_guess(const Model& model) {
    if (model.memory > 0) return model.memory;
    const uint64_t weights = model.path.empty() ? 0 : bytes_at(model.path);
    return weights + weights / 5 + engine_bytes_guess;
}

}  // namespace torpor::gpu
