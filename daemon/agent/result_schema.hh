// The schema that a prompt may come with.
#pragma once

#include "base/error.hh"

#include <string>

namespace torpor::agent {

// `invalid` unless it is a JSON Schema of an object, of at most result_schema_bytes_max.
Result<void> check_result_schema(const std::string& schema);

}  // namespace torpor::agent
