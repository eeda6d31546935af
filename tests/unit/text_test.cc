#include "base/json.hh"
#include "base/text.hh"

#include <doctest/doctest.h>

using namespace torpor;

TEST_CASE("durations: units, bare seconds, and nonsense refused") {
    CHECK(parse_duration("10m").value() == std::chrono::minutes(10));
    CHECK(parse_duration("500ms").value() == std::chrono::milliseconds(500));
    CHECK(parse_duration("7").value() == std::chrono::seconds(7));
    for (const char* wrong : {"", "m", "-1s", "1.5h", "10 m", "99999999999999999999s", "9999999d"}) {
        CAPTURE(wrong);
        CHECK(!parse_duration(wrong));
    }
}

TEST_CASE("the nearest name is offered, a far one is not") {
    const std::vector<std::string> names{"suspend", "resume", "stop"};
    CHECK(nearest("susepnd", names) == "suspend");
    CHECK(nearest("resum", names) == "resume");
    CHECK(nearest("xylophone", names).empty());
}

TEST_CASE("plain names are safe as file names") {
    CHECK(is_plain_name("smollm2:135m-Q4_1"));
    for (const char* wrong : {"", ".", "../x", "-rf", "a/b", "a b"}) {
        CAPTURE(wrong);
        CHECK(!is_plain_name(wrong));
    }
}

TEST_CASE("JSON strings are escaped, and bytes that are not UTF-8 replaced") {
    std::string out;
    append_json_string(out, "a\"\\\n\x01\xC3\xA9\xFF");
    CHECK(out == "\"a\\\"\\\\\\n\\u0001\xC3\xA9\xEF\xBF\xBD\"");
}

TEST_CASE("the last lines, without control characters") {
    CHECK(last_lines("one\ntwo\x1b\nthree\n", 2) == "two\nthree");
    CHECK(last_lines("one", 5) == "one");
    CHECK(last_lines("", 5).empty());
}
