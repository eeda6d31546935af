#include "daemon/agent/result_schema.hh"

#include "base/json_schema.hh"
#include "daemon/agent/limits.hh"

#include <simdjson.h>

namespace torpor::agent {

Result<void> check_result_schema(const std::string& schema) {
    if (schema.size() > result_schema_bytes_max) return fail(Kind::too_large, "the schema is longer than {} bytes", result_schema_bytes_max);
    if (auto good = check_schema(schema); !good) return good;
    simdjson::dom::parser parser;
    simdjson::dom::element root;
    std::string_view type;
    if (!parser.parse(schema).get(root) && root.is_object() && !root["type"].get(type) && type == "object") return {};
    return fail(Kind::invalid, "the schema must be one of an object: {{\"type\": \"object\", ...}}");
}

}  // namespace torpor::agent
