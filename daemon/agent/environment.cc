#include "daemon/agent/environment.hh"

#include "daemon/agent/limits.hh"

#include <unistd.h>

#include <algorithm>
#include <array>

namespace torpor::agent {

bool is_allowed_variable(std::string_view name) {
    static constexpr std::array<std::string_view, 19> names{
        "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "TZ", "TERM", "COLORTERM", "EDITOR", "VIRTUAL_ENV", "CONDA_PREFIX",
        "SSH_AUTH_SOCK", "GOPATH", "CARGO_HOME", "RUSTUP_HOME", "NVM_DIR", "JAVA_HOME", "TMPDIR"};
    static constexpr std::array<std::string_view, 4> secrets{"KEY", "TOKEN", "SECRET", "PASSWORD"};
    const auto says = [&](std::string_view word) { return name.find(word) != std::string_view::npos; };
    if (std::ranges::any_of(secrets, says)) return false;
    return name.starts_with("LC_") || name.starts_with("XDG_") || std::ranges::find(names, name) != names.end();
}

Environment allowed_of(const Environment& environment) {
    Environment allowed;
    for (const auto& [name, value] : environment) {
        const bool fits = value.size() <= environment_value_bytes_max && value.find('\0') == std::string::npos;
        if (is_allowed_variable(name) && fits && allowed.size() < environment_variables_max) allowed[name] = value;
    }
    return allowed;
}

Environment own_environment() {
    Environment all;
    for (char** at = environ; *at != nullptr; ++at) {
        const std::string_view variable(*at);
        if (const size_t equals = variable.find('='); equals != std::string_view::npos) {
            all.emplace(variable.substr(0, equals), variable.substr(equals + 1));
        }
    }
    return allowed_of(all);
}

}  // namespace torpor::agent
