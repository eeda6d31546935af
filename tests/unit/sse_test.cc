// The event-stream rules, each with the input that shows it; every input is also fed byte by byte.
#include "base/sse.hh"

#include <doctest/doctest.h>

#include <string>
#include <vector>

namespace torpor {

namespace {

struct Event {
    std::string name;
    std::string data;
    bool operator==(const Event&) const = default;
};

std::vector<Event> parse_in_pieces(std::string_view stream, size_t piece_bytes) {
    std::vector<Event> events;
    SseParser parser;
    for (size_t start = 0; start < stream.size(); start += piece_bytes) {
        const auto fed = parser.feed(stream.substr(start, piece_bytes), [&](std::string_view name, std::string_view data) {
            events.push_back({std::string(name), std::string(data)});
        });
        REQUIRE(fed.has_value());
    }
    return events;
}

// How the stream is cut into pieces never matters.
std::vector<Event> parse(std::string_view stream) {
    const auto whole = parse_in_pieces(stream, stream.size() + 1);
    for (size_t piece_bytes = 1; piece_bytes <= 4; ++piece_bytes) {
        CHECK(parse_in_pieces(stream, piece_bytes) == whole);
    }
    return whole;
}

Result<void> feed_nowhere(SseParser& parser, std::string_view bytes) {
    return parser.feed(bytes, [](std::string_view, std::string_view) {});
}

}  // namespace

TEST_CASE("sse: an event is its data and its name") {
    CHECK(parse("data: one\n\n") == std::vector<Event>{{"message", "one"}});
    CHECK(parse("event: ping\ndata: 1\n\ndata: 2\n\n") == std::vector<Event>{{"ping", "1"}, {"message", "2"}});
}

TEST_CASE("sse: lines end with LF, CR or CRLF, also mixed") {
    const std::vector<Event> expected{{"a", "x"}, {"message", "y"}};
    CHECK(parse("event:a\ndata:x\n\ndata:y\n\n") == expected);
    CHECK(parse("event:a\rdata:x\r\rdata:y\r\r") == expected);
    CHECK(parse("event:a\r\ndata:x\r\n\r\ndata:y\r\n\r\n") == expected);
    CHECK(parse("event:a\rdata:x\n\r\ndata:y\r\n\n") == expected);
}

TEST_CASE("sse: a carriage return completes the event at once") {
    SseParser parser;
    int events = 0;
    REQUIRE(parser.feed("data: x\r\n\r", [&](auto, auto) { ++events; }).has_value());
    CHECK(events == 1);
    REQUIRE(parser.feed("\n\n", [&](auto, auto) { ++events; }).has_value());
    CHECK(events == 1);
}

TEST_CASE("sse: several data lines are joined by newlines") {
    CHECK(parse("data: a\ndata: b\ndata\ndata:c\n\n") == std::vector<Event>{{"message", "a\nb\n\nc"}});
    CHECK(parse("data\n\n") == std::vector<Event>{{"message", ""}});
    CHECK(parse("data\ndata\n\n") == std::vector<Event>{{"message", "\n"}});
}

TEST_CASE("sse: one space after the colon belongs to the field") {
    CHECK(parse("data:  two\n\n") == std::vector<Event>{{"message", " two"}});
    CHECK(parse("data:\tx: y\n\n") == std::vector<Event>{{"message", "\tx: y"}});
}

TEST_CASE("sse: a byte order mark is skipped at the stream's start only") {
    CHECK(parse("\xEF\xBB\xBF" "data: x\n\n") == std::vector<Event>{{"message", "x"}});
    CHECK(parse("\n\xEF\xBB\xBF" "data: x\n\n").empty());
    CHECK(parse("\xEF\xBB\xBF\xEF\xBB\xBF" "data: x\n\n").empty());
}

TEST_CASE("sse: comments and unknown fields are skipped") {
    CHECK(parse(": hello\n:\ndata: x\nretry: 10\nDATA: y\n data: z\nnonsense\n\n") == std::vector<Event>{{"message", "x"}});
}

TEST_CASE("sse: an event without data is none, and one cut off is none") {
    CHECK(parse("event: ping\n\ndata: x\n\n") == std::vector<Event>{{"message", "x"}});
    CHECK(parse("data: x\n").empty());
    CHECK(parse("data: x").empty());
    CHECK(parse("\n\n\r\n").empty());
}

TEST_CASE("sse: the id counts when its event is complete, without NUL, until it is replaced") {
    SseParser parser;
    REQUIRE(feed_nowhere(parser, "id: 7\ndata: x\n").has_value());
    CHECK(parser.last_event_id().empty());
    REQUIRE(feed_nowhere(parser, "\ndata: y\n\n").has_value());
    CHECK(parser.last_event_id() == "7");
    REQUIRE(feed_nowhere(parser, std::string_view("id: 8\0\n\n", 8)).has_value());
    CHECK(parser.last_event_id() == "7");
    REQUIRE(feed_nowhere(parser, "id\n\n").has_value());
    CHECK(parser.last_event_id().empty());
}

TEST_CASE("sse: a line or an event over the limit is refused for good") {
    SseParser line_parser(16);
    REQUIRE(feed_nowhere(line_parser, "data: 0123456789").has_value());
    const auto refused = feed_nowhere(line_parser, "x");
    REQUIRE(!refused.has_value());
    CHECK(refused.error().kind == Kind::too_large);
    CHECK(!feed_nowhere(line_parser, "\n\n").has_value());

    SseParser event_parser(16);
    REQUIRE(feed_nowhere(event_parser, "data: 01234567\n").has_value());
    CHECK(!feed_nowhere(event_parser, "data: 01234567\n").has_value());

    SseParser many_parser(16);  // the limit is one event's, not the stream's
    for (int i = 0; i < 100; ++i) REQUIRE(feed_nowhere(many_parser, "data: 01234\n\n").has_value());
}

}  // namespace torpor
