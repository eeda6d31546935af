// What of a client's environment its session's tools get: an allow-list, so that no key comes through that was forgotten.
#pragma once

#include <map>
#include <string>
#include <string_view>

namespace torpor::agent {

using Environment = std::map<std::string, std::string>;

// PATH, HOME, USER, LOGNAME, SHELL, LANG, LC_*, TZ, TERM, COLORTERM, EDITOR, VIRTUAL_ENV, CONDA_PREFIX, SSH_AUTH_SOCK, GOPATH,
// CARGO_HOME, RUSTUP_HOME, NVM_DIR, JAVA_HOME and XDG_*; none whose name says KEY, TOKEN, SECRET or PASSWORD.
bool is_allowed_variable(std::string_view name);

// Those that are allowed, within environment_variables_max and environment_value_bytes_max.
Environment allowed_of(const Environment& environment);

// The daemon's own, as allowed: for sessions whose client gave none.
Environment own_environment();

}  // namespace torpor::agent
