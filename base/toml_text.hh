// What must be true of a text before toml++ reads it.
//
// toml++ 3.0 asserts or runs into undefined behaviour on a control character where a key should begin, and on letters
// such as é where it looks for white space. TOML forbids both; so they are refused here, with their line.
#pragma once

#include "base/error.hh"

#include <string>
#include <string_view>

namespace torpor {

// toml++ asserts on some texts that are no TOML; include this header before its own, and catch this around
// toml::parse, so that a mistake in a file is an error and not the end of the daemon.
struct TomlMistake {};

constexpr void toml_assert(bool holds) {
    if (!holds) throw TomlMistake();
}

}  // namespace torpor

#define TOML_ASSERT(expr) ::torpor::toml_assert(static_cast<bool>(expr))

namespace torpor {

// `invalid`, as "FILE:LINE: ...", for control characters anywhere and for non-ASCII letters outside of quotes and
// comments. Everything else is left to the parser.
Result<void> check_toml_text(std::string_view text, const std::string& file);

}  // namespace torpor
