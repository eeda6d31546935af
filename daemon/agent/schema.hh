// Whether the input of a tool fits its JSON Schema: the few keywords that tools use (type, properties, required,
// additionalProperties, items, enum, minimum, maximum, minLength), and no more.
#pragma once

#include "base/error.hh"

#include <simdjson.h>

#include <string_view>

namespace torpor::agent {

// `invalid`, in words for the model: what is missing, unknown (with the nearest name), given twice or of the wrong type.
Result<void> check_input(std::string_view schema, const simdjson::dom::object& input);

}  // namespace torpor::agent
