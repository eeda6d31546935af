// What must be true of a text before toml++ reads it.
//
// toml++ 3.0 asserts or runs into undefined behaviour on a control character where a key should begin, and on letters
// such as é where it looks for white space. TOML forbids both; so they are refused here, with their line.
#pragma once

#include "base/error.hh"

#include <string>
#include <string_view>

namespace torpor {

// `invalid`, as "FILE:LINE: ...", for control characters anywhere and for non-ASCII letters outside of quotes and
// comments. Everything else is left to the parser.
Result<void> check_toml_text(std::string_view text, const std::string& file);

}  // namespace torpor
