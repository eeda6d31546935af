// What is piped into torpor.
#pragma once

#include "base/error.hh"

#include <string>

namespace torpor::cli {

// What a pipe or file on standard input holds; empty for a terminal or /dev/null. Says so if it waits for long.
Result<std::string> read_standard_input();

}  // namespace torpor::cli
