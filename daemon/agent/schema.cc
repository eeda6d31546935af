#include "daemon/agent/schema.hh"

#include "base/text.hh"
#include "daemon/agent/limits.hh"

#include <set>
#include <string>
#include <vector>

namespace torpor::agent {

namespace {

namespace dom = simdjson::dom;

Result<void> check(const dom::object& schema, const dom::element& value, const std::string& name, int depth);

bool has_type(std::string_view type, const dom::element& value) {
    if (type == "string") return value.is_string();
    if (type == "boolean") return value.is_bool();
    if (type == "number") return value.is_number();
    if (type == "integer") return value.is_int64() || value.is_uint64();
    if (type == "array") return value.is_array();
    if (type == "object") return value.is_object();
    return true;
}

Result<void> check_members(const dom::object& schema, const dom::object& value, const std::string& where, int depth) {
    dom::object properties;
    const bool has_properties = schema["properties"].get(properties) == simdjson::SUCCESS;
    std::vector<std::string> known;
    if (has_properties) {
        for (const auto& [key, unused] : properties) known.emplace_back(key);
    }
    bool takes_others = true;
    if (schema["additionalProperties"].get(takes_others)) takes_others = true;
    std::set<std::string_view> seen;
    for (const auto& [key, element] : value) {
        const std::string name = where.empty() ? std::string(key.substr(0, 64)) : fmt::format("{}.{}", where, key.substr(0, 64));
        if (!seen.insert(key).second) return fail(Kind::invalid, "'{}' is given twice", name);
        dom::object inner;
        if (has_properties && properties[key].get(inner) == simdjson::SUCCESS) {
            if (auto good = check(inner, element, name, depth + 1); !good) return good;
        } else if (!takes_others) {
            return fail(Kind::invalid, "'{}' is not a field of this tool{}; it has {}", name, did_you_mean(key, known), fmt::join(known, ", "));
        }
    }
    dom::array required;
    if (schema["required"].get(required)) return {};
    for (const dom::element element : required) {
        std::string_view key;
        if (!element.get(key) && !seen.contains(key)) {
            return fail(Kind::invalid, "'{}' is missing", where.empty() ? std::string(key) : fmt::format("{}.{}", where, key));
        }
    }
    return {};
}

Result<void> check_bounds(const dom::object& schema, const dom::element& value, const std::string& name) {
    double bound = 0, number = 0;
    if (value.is_number() && !value.get(number)) {
        if (!schema["minimum"].get(bound) && number < bound) return fail(Kind::invalid, "'{}' must be at least {}", name, bound);
        if (!schema["maximum"].get(bound) && number > bound) return fail(Kind::invalid, "'{}' must be at most {}", name, bound);
    }
    uint64_t length = 0;
    std::string_view text;
    if (!value.get(text) && !schema["minLength"].get(length) && text.size() < length) {
        return fail(Kind::invalid, "'{}' must have at least {} characters", name, length);
    }
    dom::array choices;
    if (schema["enum"].get(choices)) return {};
    std::vector<std::string> names;
    for (const dom::element choice : choices) {
        std::string_view one;
        if (choice.get(one)) continue;
        if (one == text && value.is_string()) return {};
        names.emplace_back(one);
    }
    return fail(Kind::invalid, "'{}' must be one of {}", name, fmt::join(names, ", "));
}

Result<void> check(const dom::object& schema, const dom::element& value, const std::string& name, int depth) {
    if (depth > schema_depth_max) return fail(Kind::invalid, "'{}' is nested too deep", name);
    std::string_view type;
    if (!schema["type"].get(type) && !has_type(type, value)) {
        return fail(Kind::invalid, "'{}' must be {} {}", name, type == "array" || type == "integer" || type == "object" ? "an" : "a", type);
    }
    if (auto good = check_bounds(schema, value, name); !good) return good;
    dom::object members;
    if (!value.get(members)) return check_members(schema, members, name, depth);
    dom::array elements;
    dom::object inner;
    if (value.get(elements) || schema["items"].get(inner)) return {};
    size_t index = 0;
    for (const dom::element element : elements) {
        if (auto good = check(inner, element, fmt::format("{}[{}]", name, index++), depth + 1); !good) return good;
    }
    return {};
}

}  // namespace

Result<void> check_input(std::string_view schema, const simdjson::dom::object& input) {
    dom::parser parser;
    dom::object object;
    if (parser.parse(schema.data(), schema.size()).get(object)) return fail(Kind::internal, "the tool's schema is no JSON object");
    return check_members(object, input, "", 0);
}

}  // namespace torpor::agent
