#include "daemon/agent/project.hh"

#include "daemon/agent/limits.hh"

namespace torpor::agent {

namespace fs = std::filesystem;

fs::path git_root_of(const fs::path& folder) {
    std::error_code ignored;
    fs::path at = folder;
    for (size_t level = 0; level < folder_levels_max; ++level) {
        if (fs::exists(at / ".git", ignored)) return at;
        if (at == at.parent_path()) break;
        at = at.parent_path();
    }
    return folder;
}

std::vector<fs::path> project_levels(const fs::path& folder) {
    const fs::path root = git_root_of(folder);
    std::vector<fs::path> levels;
    for (fs::path at = folder; levels.size() < folder_levels_max; at = at.parent_path()) {
        levels.push_back(at);
        if (at == root || at == at.parent_path()) break;
    }
    return levels;
}

}  // namespace torpor::agent
