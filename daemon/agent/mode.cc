#include "daemon/agent/mode.hh"

#include <array>

namespace torpor::agent {

namespace {

constexpr std::array<std::string_view, 3> names{"read-only", "workspace-write", "danger-full-access"};

}  // namespace

std::string_view name_of(Mode mode) {
    return names[static_cast<size_t>(mode)];
}

std::optional<Mode> parse_mode(std::string_view name) {
    for (size_t i = 0; i < names.size(); ++i) {
        if (names[i] == name) return static_cast<Mode>(i);
    }
    return {};
}

}  // namespace torpor::agent
