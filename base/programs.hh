// Torpor's own programs find each other.
#pragma once

#include "base/error.hh"

#include <string>

namespace torpor {

// The path of a program or file of ours: in TORPOR_LIBEXEC, beside this program, in the build tree
// (`build_folder`, relative to its root), or below the prefix (bin/, libexec/torpor/, lib/systemd/user/).
Result<std::string> find_beside(const std::string& name, const std::string& build_folder);

}  // namespace torpor
