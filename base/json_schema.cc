#include "base/json_schema.hh"

#include "base/json.hh"
#include "base/limits.hh"
#include "base/text.hh"

#include <re2/re2.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <set>
#include <string>
#include <vector>

namespace torpor {

namespace {

namespace dom = simdjson::dom;

constexpr size_t shown_bytes_max = 64;  // of a name or a value, in an error

std::string_view shown(std::string_view text) {
    return text.substr(0, shown_bytes_max);
}

// ---- Comparing and measuring values.

size_t characters_of(std::string_view text) {
    return static_cast<size_t>(std::ranges::count_if(text, [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }));
}

bool is_equal(const dom::element& a, const dom::element& b);

bool are_members_equal(const dom::object& a, const dom::object& b) {
    if (a.size() != b.size()) return false;
    return std::ranges::all_of(a, [&](const auto& member) {
        dom::element other;
        return b[member.key].get(other) == simdjson::SUCCESS && is_equal(member.value, other);
    });
}

bool is_equal(const dom::element& a, const dom::element& b) {
    if (a.is_number() && b.is_number()) {
        int64_t whole_a = 0, whole_b = 0;
        if (!a.get(whole_a) && !b.get(whole_b)) return whole_a == whole_b;
        return a.get_double().value() == b.get_double().value();
    }
    if (a.type() != b.type()) return false;
    switch (a.type()) {
        case dom::element_type::STRING: return std::string_view(a) == std::string_view(b);
        case dom::element_type::BOOL: return bool(a) == bool(b);
        case dom::element_type::OBJECT: return are_members_equal(a.get_object().value(), b.get_object().value());
        case dom::element_type::ARRAY: {
            const dom::array left = a.get_array().value(), right = b.get_array().value();
            return left.size() == right.size() && std::equal(left.begin(), left.end(), right.begin(), is_equal);
        }
        default: return true;  // null
    }
}

bool is_whole(const dom::element& value) {
    if (value.is_int64() || value.is_uint64()) return true;
    return value.is_double() && std::floor(value.get_double().value()) == value.get_double().value();
}

bool has_type(std::string_view type, const dom::element& value) {
    if (type == "string") return value.is_string();
    if (type == "boolean") return value.is_bool();
    if (type == "number") return value.is_number();
    if (type == "integer") return is_whole(value);
    if (type == "array") return value.is_array();
    if (type == "object") return value.is_object();
    return type == "null" && value.is_null();
}

std::string with_article(std::string_view type) {
    if (type == "null") return "null";
    return fmt::format("{} {}", type == "array" || type == "integer" || type == "object" ? "an" : "a", type);
}

// ---- One check of one value against one schema.

class Checker {
  public:
    explicit Checker(const dom::element& root) : root_(root) {}

    Result<void> check(const dom::element& schema, const dom::element& value, const std::string& name, int depth) {
        if (depth > json_schema_depth_max) return fail(Kind::invalid, "{} is nested too deep", quoted(name));
        if (++steps_ > json_schema_steps_max) return fail(Kind::invalid, "the schema takes too long to check");
        bool allows = true;
        if (!schema.get(allows)) return allows ? Result<void>() : fail(Kind::invalid, "{} is not allowed", quoted(name));
        dom::object keywords;
        if (schema.get(keywords)) return {};
        auto good = check_reference(keywords, value, name, depth);
        if (good) good = check_type(keywords, value, name);
        if (good) good = check_choices(keywords, value, name);
        if (good && value.is_number()) good = check_number(keywords, value, name);
        if (good && value.is_string()) good = check_text(keywords, value, name);
        if (good && value.is_object()) good = check_members(keywords, value.get_object().value(), name, depth);
        if (good && value.is_array()) good = check_elements(keywords, value.get_array().value(), name, depth);
        if (good) good = check_combined(keywords, value, name, depth);
        return good;
    }

  private:
    static std::string quoted(const std::string& name) { return name.empty() ? "it" : "'" + name + "'"; }

    Result<void> check_reference(const dom::object& schema, const dom::element& value, const std::string& name, int depth) {
        std::string_view pointer;
        if (schema["$ref"].get(pointer)) return {};
        dom::element target = root_;
        if (pointer.size() > 1 && root_.at_pointer(pointer.substr(1)).get(target)) {
            return fail(Kind::invalid, "the schema refers to {}, which is not there", shown(pointer));
        }
        return check(target, value, name, depth + 1);
    }

    static Result<void> check_type(const dom::object& schema, const dom::element& value, const std::string& name) {
        dom::element type;
        if (schema["type"].get(type)) return {};
        std::vector<std::string> wanted;
        dom::array several;
        std::string_view one;
        if (!type.get(one)) {
            if (has_type(one, value)) return {};
            wanted.push_back(with_article(one));
        } else if (!type.get(several)) {
            for (const dom::element each : several) {
                if (each.get(one)) continue;
                if (has_type(one, value)) return {};
                wanted.push_back(with_article(one));
            }
        }
        return fail(Kind::invalid, "{} must be {}", quoted(name), fmt::join(wanted, " or "));
    }

    static Result<void> check_choices(const dom::object& schema, const dom::element& value, const std::string& name) {
        dom::element only;
        if (!schema["const"].get(only) && !is_equal(only, value)) {
            return fail(Kind::invalid, "{} must be {}", quoted(name), shown(simdjson::minify(only)));
        }
        dom::array choices;
        if (schema["enum"].get(choices)) return {};
        std::vector<std::string> names;
        for (const dom::element choice : choices) {
            if (is_equal(choice, value)) return {};
            std::string_view text;
            names.emplace_back(choice.get(text) ? simdjson::minify(choice) : std::string(text));
        }
        return fail(Kind::invalid, "{} must be one of {}", quoted(name), fmt::join(names, ", "));
    }

    static Result<void> check_number(const dom::object& schema, const dom::element& value, const std::string& name) {
        const double number = value.get_double().value();
        double bound = 0;
        const auto has = [&](std::string_view key) { return schema[key].get(bound) == simdjson::SUCCESS; };
        if (has("minimum") && number < bound) return fail(Kind::invalid, "{} must be at least {}", quoted(name), bound);
        if (has("maximum") && number > bound) return fail(Kind::invalid, "{} must be at most {}", quoted(name), bound);
        if (has("exclusiveMinimum") && number <= bound) return fail(Kind::invalid, "{} must be more than {}", quoted(name), bound);
        if (has("exclusiveMaximum") && number >= bound) return fail(Kind::invalid, "{} must be less than {}", quoted(name), bound);
        if (has("multipleOf") && bound > 0) {
            const double times = number / bound;
            if (!std::isfinite(times) || std::abs(times - std::round(times)) > 1e-9 * std::max(1.0, std::abs(times))) {
                return fail(Kind::invalid, "{} must be a multiple of {}", quoted(name), bound);
            }
        }
        return {};
    }

    // Of characters, elements or members.
    static Result<void> check_count(const dom::object& schema, std::string_view least, std::string_view most, size_t count,
                                    const std::string& name, std::string_view what) {
        double bound = 0;  // 2.0 is a count, too
        if (!schema[least].get(bound) && static_cast<double>(count) < bound) {
            return fail(Kind::invalid, "{} must have at least {} {}{}", quoted(name), bound, what, bound == 1 ? "" : "s");
        }
        if (!schema[most].get(bound) && static_cast<double>(count) > bound) {
            return fail(Kind::invalid, "{} must have at most {} {}{}", quoted(name), bound, what, bound == 1 ? "" : "s");
        }
        return {};
    }

    Result<void> check_text(const dom::object& schema, const dom::element& value, const std::string& name) {
        const std::string_view text(value);
        auto good = check_count(schema, "minLength", "maxLength", characters_of(text), name, "character");
        std::string_view pattern;
        if (!good || schema["pattern"].get(pattern)) return good;
        if (matches(pattern, text)) return {};
        return fail(Kind::invalid, "{} must match {}", quoted(name), shown(pattern));
    }

    static bool matches(std::string_view pattern, std::string_view text) {
        const re2::RE2 expression(re2::StringPiece(pattern.data(), pattern.size()), re2::RE2::Quiet);
        return expression.ok() && re2::RE2::PartialMatch(re2::StringPiece(text.data(), text.size()), expression);
    }

    Result<void> check_members(const dom::object& schema, const dom::object& value, const std::string& where, int depth) {
        auto good = check_count(schema, "minProperties", "maxProperties", value.size(), where, "member");
        if (!good) return good;
        std::set<std::string_view> seen;
        for (const auto& [key, element] : value) {
            const std::string name = name_in(where, key);
            if (!seen.insert(key).second) return fail(Kind::invalid, "'{}' is given twice", name);
            if (good = check_member(schema, key, element, name, depth); !good) return good;
        }
        const auto need = [&](const dom::array& keys) -> Result<void> {
            for (const dom::element one : keys) {
                std::string_view key;
                if (!one.get(key) && !seen.contains(key)) return fail(Kind::invalid, "'{}' is missing", name_in(where, key));
            }
            return {};
        };
        dom::array required;
        if (!schema["required"].get(required)) good = need(required);
        dom::object dependent;
        if (!good || schema["dependentRequired"].get(dependent)) return good;
        for (const auto& [key, keys] : dependent) {
            if (!seen.contains(key) || keys.get(required)) continue;
            if (good = need(required); !good) return good;
        }
        return {};
    }

    static std::string name_in(const std::string& where, std::string_view key) {
        return where.empty() ? std::string(shown(key)) : fmt::format("{}.{}", where, shown(key));
    }

    Result<void> check_member(const dom::object& schema, std::string_view key, const dom::element& value, const std::string& name, int depth) {
        dom::object properties, patterns;
        dom::element inner;
        bool is_known = false;
        const bool has_properties = schema["properties"].get(properties) == simdjson::SUCCESS;
        if (has_properties && !properties[key].get(inner)) {
            is_known = true;
            if (auto good = check(inner, value, name, depth + 1); !good) return good;
        }
        if (!schema["patternProperties"].get(patterns)) {
            for (const auto& [pattern, of_pattern] : patterns) {
                if (!matches(pattern, key)) continue;
                is_known = true;
                if (auto good = check(of_pattern, value, name, depth + 1); !good) return good;
            }
        }
        if (!schema["propertyNames"].get(inner)) {
            if (auto good = check_name(inner, key, depth); !good) return good;
        }
        if (is_known || schema["additionalProperties"].get(inner)) return {};
        bool takes_others = true;
        if (inner.get(takes_others) || takes_others) return check(inner, value, name, depth + 1);
        std::vector<std::string> known;
        if (has_properties) {
            for (const auto& [one, unused] : properties) known.emplace_back(one);
        }
        if (known.empty()) return fail(Kind::invalid, "'{}' is not known", name);
        return fail(Kind::invalid, "'{}' is not known{}; there are {}", name, did_you_mean(key, known), fmt::join(known, ", "));
    }

    Result<void> check_name(const dom::element& schema, std::string_view key, int depth) {
        std::string text;
        append_json_string(text, key);
        dom::parser parser;
        dom::element name;
        if (parser.parse(text).get(name)) return {};
        return check(schema, name, fmt::format("the name {}", shown(key)), depth + 1);
    }

    Result<void> check_elements(const dom::object& schema, const dom::array& value, const std::string& name, int depth) {
        auto good = check_count(schema, "minItems", "maxItems", value.size(), name, "element");
        bool must_differ = false;
        if (good && !schema["uniqueItems"].get(must_differ) && must_differ) good = check_unique(value, name);
        if (!good) return good;
        dom::array first;
        dom::element rest;
        size_t index = 0, first_count = 0;
        if (!schema["prefixItems"].get(first)) first_count = first.size();
        const bool has_rest = schema["items"].get(rest) == simdjson::SUCCESS;
        for (const dom::element element : value) {
            const std::string one = fmt::format("{}[{}]", name, index);
            if (index < first_count) {
                good = check(first.at(index).value(), element, one, depth + 1);
            } else if (has_rest) {
                good = check(rest, element, one, depth + 1);
            }
            if (!good) return good;
            ++index;
        }
        dom::element wanted;
        if (schema["contains"].get(wanted)) return {};
        if (std::ranges::any_of(value, [&](const dom::element& element) { return check(wanted, element, name, depth + 1).has_value(); })) return {};
        return fail(Kind::invalid, "{} has no element of the kind that it must contain", quoted(name));
    }

    Result<void> check_unique(const dom::array& value, const std::string& name) {
        const std::vector<dom::element> elements(value.begin(), value.end());
        for (size_t i = 0; i < elements.size(); ++i) {
            for (size_t j = 0; j < i; ++j) {
                if (++steps_ > json_schema_steps_max) return fail(Kind::invalid, "the schema takes too long to check");
                if (is_equal(elements[i], elements[j])) return fail(Kind::invalid, "{} has the same element twice, at {} and {}", quoted(name), j, i);
            }
        }
        return {};
    }

    Result<void> check_combined(const dom::object& schema, const dom::element& value, const std::string& name, int depth) {
        dom::array several;
        dom::element one;
        if (!schema["allOf"].get(several)) {
            for (const dom::element each : several) {
                if (auto good = check(each, value, name, depth + 1); !good) return good;
            }
        }
        for (const bool only_one : {false, true}) {
            if (schema[only_one ? "oneOf" : "anyOf"].get(several)) continue;
            size_t met = 0;
            std::optional<Error> first;
            for (const dom::element each : several) {
                auto good = check(each, value, name, depth + 1);
                if (good) ++met;
                if (!good && !first) first = good.error();
            }
            if (met == 0) return fail(Kind::invalid, "{} has none of the forms that it may have{}", quoted(name), first ? "; of the first: " + first->message : "");
            if (only_one && met > 1) return fail(Kind::invalid, "{} has {} of the forms of which it must have one", quoted(name), met);
        }
        if (!schema["not"].get(one) && check(one, value, name, depth + 1)) return fail(Kind::invalid, "{} has a form that it must not have", quoted(name));
        if (schema["if"].get(one)) return {};
        const std::string_view branch = check(one, value, name, depth + 1) ? "then" : "else";
        return schema[branch].get(one) ? Result<void>() : check(one, value, name, depth + 1);
    }

    const dom::element root_;
    size_t steps_ = 0;
};

}  // namespace

Result<void> check_json(std::string_view schema, const simdjson::dom::element& value) {
    dom::parser parser;
    dom::element root;
    if (parser.parse(schema.data(), schema.size()).get(root)) return fail(Kind::internal, "the schema is no JSON");
    return Checker(root).check(root, value, "", 0);
}

}  // namespace torpor
