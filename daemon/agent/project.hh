// The project that a folder is in.
#pragma once

#include <filesystem>
#include <vector>

namespace torpor::agent {

// The nearest folder from `folder` up that has a .git; `folder` itself where there is none.
std::filesystem::path git_root_of(const std::filesystem::path& folder);

// `folder` and those above it up to the root of its git repository, the nearest first; at most folder_levels_max.
std::vector<std::filesystem::path> project_levels(const std::filesystem::path& folder);

}  // namespace torpor::agent
