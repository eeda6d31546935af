// Whether JSON fits a JSON Schema (https://json-schema.org/draft/2020-12; draft 7 where the two agree), told in words for
// whoever wrote the JSON.
//
// Understood: boolean schemas, $ref within the document, $defs, definitions, type, enum, const, properties, patternProperties,
// additionalProperties, propertyNames, required, dependentRequired, minProperties, maxProperties, items, prefixItems, contains,
// minItems, maxItems, uniqueItems, minimum, maximum, exclusiveMinimum, exclusiveMaximum, multipleOf, minLength, maxLength,
// pattern (as RE2 reads it), allOf, anyOf, oneOf, not, if, then, else. What only describes (title, description, default, format
// and the like) is passed over. A schema with another keyword is refused by check_schema(), never half obeyed.
#pragma once

#include "base/error.hh"

#include <simdjson.h>

#include <string_view>

namespace torpor {

// `invalid`: which keyword, and where.
Result<void> check_schema(std::string_view schema);

// `invalid`: what is missing, unknown (with the nearest name), given twice, of the wrong type or out of bounds. The schema is one
// that check_schema() takes; keywords that are not understood are passed over. Any thread.
Result<void> check_json(std::string_view schema, const simdjson::dom::element& value);

}  // namespace torpor
