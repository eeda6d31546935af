#include "daemon/gateway/request_scan.hh"
#include "daemon/gateway/response_parser.hh"
#include "daemon/gateway/wires.hh"

#include <doctest/doctest.h>

#include <simdjson.h>

using namespace torpor;
using namespace torpor::gateway;

TEST_CASE("the scanner finds model and stream at the top level only") {
    std::string body = R"( {"messages":[{"model":"inner"}], "stream" : true , "model" : "a\u0062c" } )";
    const auto scan = scan_request(body);
    REQUIRE(scan);
    CHECK(scan->model == "abc");
    CHECK(scan->wants_stream);
    replace_model(body, *scan, "other");
    CHECK(body == R"( {"messages":[{"model":"inner"}], "stream" : true , "model" : "other" } )");
}

TEST_CASE("the scanner refuses what two parsers could read differently") {
    for (const char* wrong : {"", "[]", "{}", "{\"model\":1}", "{\"model\":\"a\",\"model\":\"b\"}", "{\"model\":\"a\"} x",
                              "{\"model\":\"a\",\"stream\":\"yes\"}", "{\"model\":\"a\"", "{\"model\":\"\"}"}) {
        CAPTURE(wrong);
        std::string body = wrong;
        CHECK(!scan_request(body));
    }
}

namespace {

std::string parse(std::string_view answer, size_t step, ResponseParser& parser) {
    std::string out;
    for (size_t at = 0; at < answer.size(); at += step) REQUIRE(parser.feed(answer.substr(at, step), out));
    return out;
}

}  // namespace

TEST_CASE("answers are read the same in pieces of any size") {
    const std::string_view answer =
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        "5\r\nhello\r\n6;x=y\r\n world\r\n0\r\nTrailer: x\r\n\r\n";
    for (size_t step = 1; step <= answer.size(); ++step) {
        CAPTURE(step);
        ResponseParser parser;
        CHECK(parse(answer, step, parser) == "hello world");
        CHECK(parser.is_complete());
        CHECK(parser.keeps_alive());
        CHECK(parser.status() == 200);
        CHECK(parser.content_type() == "text/event-stream");
    }
}

TEST_CASE("an answer that is cut short, too long or no HTTP is an error") {
    ResponseParser cut;
    std::string out;
    REQUIRE(cut.feed("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc", out));
    CHECK(!cut.finish());
    ResponseParser more;
    CHECK(!more.feed("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nabc", out));
    ResponseParser bomb;
    CHECK(!bomb.feed("HTTP/1.1 200 OK\r\n" + std::string(100'000, 'x'), out));
    ResponseParser garbage;
    CHECK(!garbage.feed("SSH-2.0-OpenSSH_9.2\r\n\r\n", out));
}

TEST_CASE("errors have the shape of the wire called") {
    const Error error{Kind::not_found, "there is no model 'x'", {}};
    simdjson::dom::parser parser;
    const WireRow* openai = find_wire("/v1/chat/completions");
    const WireRow* anthropic = find_wire("/v1/messages");
    REQUIRE(openai != nullptr);
    REQUIRE(anthropic != nullptr);
    CHECK(std::string_view(parser.parse(openai->error_body(error))["error"]["type"]) == "invalid_request_error");
    CHECK(std::string_view(parser.parse(anthropic->error_body(error))["error"]["type"]) == "not_found_error");
    CHECK(anthropic->error_event(error).starts_with("event: error\ndata: "));
    CHECK(find_wire("/v1/models") == nullptr);
}
