#include "daemon/gateway/limits.hh"
#include "daemon/gateway/request_scan.hh"
#include "daemon/gateway/stream_tap.hh"

#include <doctest/doctest.h>

using namespace torpor::gateway;

namespace {

const std::string text_event = "data: {\"choices\":[{\"delta\":{\"content\":\"hi\"}}]}\n\n";
const std::string usage_event = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":3}}\n\n";
const std::string done_event = "data: [DONE]\n\n";

std::string pass(std::string_view stream, size_t step, StreamTap& tap) {
    std::string out;
    for (size_t at = 0; at < stream.size(); at += step) tap.feed(stream.substr(at, step), out);
    tap.finish(out);
    return out;
}

}  // namespace

TEST_CASE("usage is read however the stream is cut, and dropped only if it was our wish") {
    const std::string stream = text_event + usage_event + done_event;
    for (size_t step = 1; step <= stream.size(); ++step) {
        CAPTURE(step);
        StreamTap drops(true), keeps(false);
        CHECK(pass(stream, step, drops) == text_event + done_event);
        CHECK(pass(stream, step, keeps) == stream);
        CHECK(drops.usage().input_tokens == 7);
        CHECK(keeps.usage().output_tokens == 3);
    }
}

TEST_CASE("usage of the other wires") {
    StreamTap anthropic(false), responses(false);
    pass("event: message_start\ndata: {\"message\":{\"usage\":{\"input_tokens\":5,\"output_tokens\":1}}}\n\n"
         "event: message_delta\r\ndata: {\"usage\":{\"output_tokens\":9}}\r\n\r\n", 4096, anthropic);
    CHECK(anthropic.usage().input_tokens == 5);
    CHECK(anthropic.usage().output_tokens == 9);
    pass("event: response.completed\ndata: {\"response\":{\"usage\":{\"input_tokens\":2,\"output_tokens\":4}}}\n\n", 10, responses);
    CHECK(responses.usage().output_tokens == 4);
}

TEST_CASE("an event that is too long passes unread, and the stream goes on") {
    const std::string longest = "data: \"usage\"" + std::string(event_bytes_max, 'x') + "\n\n";
    StreamTap tap(true);
    CHECK(pass(longest + usage_event + done_event, 4096, tap) == longest + done_event);
    CHECK(tap.usage().input_tokens == 7);
}

TEST_CASE("a stream that is cut leaves no half of an event before the next") {
    std::string out;
    StreamTap cut(false);
    cut.feed("data: 1\n\ndata: {\"tok", out);
    cut.cut(out);
    CHECK(out == "data: 1\n\n");
    out.clear();
    StreamTap long_cut(false);
    long_cut.feed("data: " + std::string(event_bytes_max, 'x'), out);
    long_cut.cut(out);
    CHECK(out.ends_with("xxx\n\n"));
}

TEST_CASE("keep_alive is a number of seconds or a duration, and stream options are asked for once") {
    const auto keep = [](const char* value) {
        std::string body = std::string("{\"model\":\"m\",\"keep_alive\":") + value + "}";
        auto scan = scan_request(body);
        REQUIRE(scan);
        REQUIRE(scan->keep_alive);
        return scan->keep_alive->count();
    };
    CHECK(keep("0") == 0);
    CHECK(keep("1.5") == 1500);
    CHECK(keep("-1") == -1);
    CHECK(keep("\"10m\"") == 600'000);
    CHECK(keep("\"-1m\"") == -1);
    std::string wrong = "{\"model\":\"m\",\"keep_alive\":\"soon\"}";
    CHECK(!scan_request(wrong));
    std::string body = "{\"model\":\"m\",\"stream\":true}";
    add_stream_options(body);
    const auto scan = scan_request(body);
    REQUIRE(scan);
    CHECK(scan->has_stream_options);
    CHECK(scan->model == "m");
}
