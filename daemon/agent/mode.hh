// Permission modes, each allowing what the ones before it do.
#pragma once

#include <optional>
#include <string_view>

namespace torpor::agent {

enum class Mode { read_only, workspace_write, danger_full_access };

// "read-only", "workspace-write", "danger-full-access".
std::string_view name_of(Mode mode);
std::optional<Mode> parse_mode(std::string_view name);

}  // namespace torpor::agent
