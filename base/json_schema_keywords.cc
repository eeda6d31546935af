// Whether a schema says only what json_schema.cc understands.
#include "base/json_schema.hh"
#include "base/limits.hh"

#include <re2/re2.h>

#include <algorithm>
#include <array>
#include <string>

namespace torpor {

namespace {

namespace dom = simdjson::dom;

constexpr size_t shown_bytes_max = 64;  // of a name, in an error

std::string_view shown(std::string_view text) {
    return text.substr(0, shown_bytes_max);
}

constexpr std::array<std::string_view, 16> describing{"$schema", "$id", "$comment", "title", "description", "default", "examples", "format", "deprecated",
                                                      "readOnly", "writeOnly", "contentEncoding", "contentMediaType", "$anchor", "$vocabulary", "$defs"};
constexpr std::array<std::string_view, 18> plain{"type", "enum", "const", "required", "dependentRequired", "minProperties", "maxProperties", "minItems", "maxItems",
                                                 "uniqueItems", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength", "maxLength", "$ref"};
constexpr std::array<std::string_view, 9> of_schema{"additionalProperties", "propertyNames", "items", "contains", "not", "if", "then", "else", "$defs"};
constexpr std::array<std::string_view, 4> of_list{"prefixItems", "allOf", "anyOf", "oneOf"};
constexpr std::array<std::string_view, 4> of_members{"properties", "patternProperties", "$defs", "definitions"};

constexpr std::array<std::string_view, 7> types{"string", "number", "integer", "boolean", "object", "array", "null"};

bool is_one_of(const auto& names, std::string_view name) {
    return std::ranges::find(names, name) != names.end();
}

bool is_type(const dom::element& value) {
    std::string_view name;
    dom::array several;
    if (!value.get(name)) return is_one_of(types, name);
    return !value.get(several) && std::ranges::all_of(several, [&](const dom::element& one) { return !one.get(name) && is_one_of(types, name); });
}

Result<void> check_pattern(std::string_view pattern, const std::string& where) {
    const re2::RE2 expression(re2::StringPiece(pattern.data(), pattern.size()), re2::RE2::Quiet);
    if (expression.ok()) return {};
    return fail(Kind::invalid, "the schema's {} has a pattern that cannot be used: {}", where, expression.error());
}

Result<void> check_keywords(const dom::element& root, const dom::element& schema, const std::string& where, int depth);

Result<void> check_keyword(const dom::element& root, std::string_view key, const dom::element& value, const std::string& here, int depth) {
    dom::object members;
    dom::array list;
    std::string_view text;
    if (is_one_of(of_members, key)) {
        if (value.get(members)) return fail(Kind::invalid, "the schema's {} must be an object", here);
        for (const auto& [name, inner] : members) {
            auto good = key == "patternProperties" ? check_pattern(name, here) : Result<void>();
            if (good) good = check_keywords(root, inner, fmt::format("{}.{}", here, shown(name)), depth + 1);
            if (!good) return good;
        }
        return {};
    }
    if (is_one_of(of_schema, key)) return check_keywords(root, value, here, depth + 1);
    if (is_one_of(of_list, key)) {
        if (value.get(list) || list.size() == 0) return fail(Kind::invalid, "the schema's {} must be a list of schemas", here);
        for (const dom::element inner : list) {
            if (auto good = check_keywords(root, inner, here, depth + 1); !good) return good;
        }
        return {};
    }
    if (key == "pattern") return value.get(text) ? fail(Kind::invalid, "the schema's {} must be a string", here) : check_pattern(text, here);
    if (key == "$ref") {
        dom::element target;
        if (!value.get(text) && (text == "#" || (text.starts_with("#/") && !root.at_pointer(text.substr(1)).get(target)))) return {};
        return fail(Kind::invalid, "the schema's {} leads nowhere; a reference must stay within the schema, like #/$defs/name", here);
    }
    if (key == "type" && !is_type(value)) return fail(Kind::invalid, "the schema's {} is no type; there are {}", here, fmt::join(types, ", "));
    if (is_one_of(plain, key) || is_one_of(describing, key)) return {};
    return fail(Kind::invalid, "the schema's {} is not understood here", here);
}

Result<void> check_keywords(const dom::element& root, const dom::element& schema, const std::string& where, int depth) {
    if (depth > json_schema_depth_max) return fail(Kind::invalid, "the schema is nested too deep");
    dom::object keywords;
    if (schema.is_bool()) return {};
    if (schema.get(keywords)) return fail(Kind::invalid, "the schema's {} must be an object, true or false", where.empty() ? "root" : where);
    for (const auto& [key, value] : keywords) {
        const std::string here = where.empty() ? std::string(shown(key)) : fmt::format("{}.{}", where, shown(key));
        if (auto good = check_keyword(root, key, value, here, depth); !good) return good;
    }
    return {};
}

}  // namespace

Result<void> check_schema(std::string_view schema) {
    dom::parser parser;
    dom::element root;
    if (parser.parse(schema.data(), schema.size()).get(root)) return fail(Kind::invalid, "the schema is no JSON");
    return check_keywords(root, root, "", 0);
}

}  // namespace torpor
