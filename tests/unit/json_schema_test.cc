#include "base/fd.hh"
#include "base/json_schema.hh"

#include <doctest/doctest.h>

#include <filesystem>
#include <set>

using namespace torpor;

namespace {

std::string complaint(std::string_view schema, const std::string& json) {
    simdjson::dom::parser parser;
    auto checked = check_json(schema, parser.parse(json).value());
    return checked ? std::string() : checked.error().message;
}

std::string schema_complaint(std::string_view schema) {
    auto checked = check_schema(schema);
    return checked ? std::string() : checked.error().message;
}

}  // namespace

TEST_CASE("JSON is checked against a schema, in words that help") {
    constexpr std::string_view schema = R"({"type":"object","properties":{"path":{"type":"string","minLength":1},"limit":{"type":"integer","minimum":1},
        "all":{"type":"array","maxItems":2,"items":{"type":"object","properties":{"state":{"enum":["open","done"]}},"required":["state"]}}},
        "required":["path"],"additionalProperties":false})";
    CHECK(complaint(schema, R"({"path":"a","limit":10,"all":[{"state":"open","free":1}]})").empty());
    CHECK(complaint(schema, "{}") == "'path' is missing");
    CHECK(complaint(schema, R"({"path":7})") == "'path' must be a string");
    CHECK(complaint(schema, R"({"path":""})") == "'path' must have at least 1 character");
    CHECK(complaint(schema, R"({"path":"a","path":"b"})") == "'path' is given twice");
    CHECK(complaint(schema, R"({"path":"a","limit":0})") == "'limit' must be at least 1");
    CHECK(complaint(schema, R"({"path":"a","limit":1.5})") == "'limit' must be an integer");
    CHECK(complaint(schema, R"({"path":"a","limt":1})") == "'limt' is not known; did you mean limit?; there are path, limit, all");
    CHECK(complaint(schema, R"({"path":"a","all":[{"state":"open"},{}]})") == "'all[1].state' is missing");
    CHECK(complaint(schema, R"({"path":"a","all":[{"state":"shut"}]})") == "'all[0].state' must be one of open, done");
    CHECK(complaint(schema, R"({"path":"a","all":[0,0,0]})") == "'all' must have at most 2 elements");
    CHECK(complaint(schema, "[]") == "it must be an object");
    CHECK(complaint(R"({"anyOf":[{"type":"string"},{"type":"null"}]})", "7") == "it has none of the forms that it may have; of the first: it must be a string");
}

TEST_CASE("a schema that is not understood is refused, and says where") {
    CHECK(schema_complaint(R"({"type":"object","properties":{"a":{"$ref":"#/$defs/b"}},"$defs":{"b":{"type":["string","null"],"format":"date"}}})").empty());
    CHECK(schema_complaint("{") == "the schema is no JSON");
    CHECK(schema_complaint("[]") == "the schema's root must be an object, true or false");
    CHECK(schema_complaint(R"({"properties":{"a":{"unevaluatedItems":false}}})") == "the schema's properties.a.unevaluatedItems is not understood here");
    CHECK(schema_complaint(R"({"type":"text"})").starts_with("the schema's type is no type; there are string, number"));
    CHECK(schema_complaint(R"({"$ref":"https://example.com/schema"})").starts_with("the schema's $ref leads nowhere"));
    CHECK(schema_complaint(R"x({"pattern":"(?=x)"})x").starts_with("the schema's pattern has a pattern that cannot be used"));
    std::string deep;
    for (int i = 0; i < 100; ++i) deep += R"({"not":)";
    CHECK(schema_complaint(deep + "{}" + std::string(100, '}')) == "the schema is nested too deep");
}

TEST_CASE("a schema that goes in circles ends") {
    CHECK(schema_complaint(R"({"$ref":"#"})").empty());
    CHECK(complaint(R"({"$ref":"#"})", "1") == "it is nested too deep");
    // Twice as many ways at each level: only the limit of steps ends it.
    CHECK_FALSE(complaint(R"({"anyOf":[{"$ref":"#"},{"$ref":"#"}]})", "1").empty());
}

// The public suite's cases, but for files with what is refused here: schemas elsewhere, and two keywords that draft 2019-09 replaced.
TEST_CASE("the public test suite of JSON Schema") {
    const std::filesystem::path suite = "/usr/share/json-schema-test-suite/tests/draft7";
    if (!std::filesystem::exists(suite)) {
        MESSAGE("not run: the package json-schema-test-suite is not installed");
        return;
    }
    // Of draft 7 alone: what stands beside $ref is passed over.
    const std::set<std::string> left_out{"additionalItems", "dependencies", "refRemote", "optional"};
    simdjson::dom::parser parser;
    int refused = 0, checked = 0;
    for (const auto& entry : std::filesystem::directory_iterator(suite)) {
        if (left_out.contains(entry.path().stem().string())) continue;
        const auto text = read_file(entry.path(), 1024UL * 1024);
        REQUIRE(text);
        const simdjson::dom::array groups = parser.parse(*text).get_array().value();
        for (const simdjson::dom::element group : groups) {
            const std::string schema = simdjson::minify(group["schema"].value());
            if (!check_schema(schema)) {
                ++refused;
                continue;
            }
            const simdjson::dom::array tests = group["tests"].get_array().value();
            if (std::string_view(group["description"].value()) == "ref overrides any sibling keywords") continue;
            for (const simdjson::dom::element test : tests) {
                const bool is_valid = test["valid"].get_bool().value();
                const std::string what = fmt::format("{}: {}: {}", entry.path().stem().string(), std::string_view(group["description"].value()),
                                                     std::string_view(test["description"].value()));
                CAPTURE(what);
                ++checked;
                CHECK(check_json(schema, test["data"].value()).has_value() == is_valid);
            }
        }
    }
    CHECK(checked > 300);
    CHECK(refused < 12);
    MESSAGE(checked << " cases, " << refused << " schemas refused");
}
