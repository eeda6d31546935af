#include "daemon/gateway/limits.hh"
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

TEST_CASE("a body without a seed is given one, and its model can still be replaced") {
    for (const auto& [before, after] : std::vector<std::pair<std::string, std::string>>{
             {R"( {"model":"m"})", R"( {"seed":7,"model":"mine"})"},
             {R"({"seed" : null ,"model":"m"})", R"({"seed" : 7 ,"model":"mine"})"},
             {R"({"model":"m","seed":null})", R"({"model":"mine","seed":7})"},
             {R"({"model":"m","x":{"seed":1}})", R"({"seed":7,"model":"mine","x":{"seed":1}})"}}) {
        std::string body = before;
        auto scan = scan_request(body);
        REQUIRE(scan);
        CHECK(!scan->has_seed);
        add_seed(body, *scan, 7);
        replace_model(body, *scan, "mine");
        CHECK(body == after);
    }
    for (const char* with_one : {R"({"model":"m","seed":0})", R"({"seed":"a","model":"m"})", R"({"seed":null,"seed":1,"model":"m"})"}) {
        std::string body = with_one;
        const auto scan = scan_request(body);
        CHECK((scan && scan->has_seed));
    }
}

TEST_CASE("the scanner refuses what two parsers could read differently") {
    for (const char* wrong : {"", "[]", "{}", "{\"model\":1}", "{\"model\":\"a\",\"model\":\"b\"}", "{\"model\":\"a\"} x",
                              "{\"model\":\"a\",\"stream\":\"yes\"}",
                              "{\"stream\":true,\"model\":\"a\",\"stream\":false}", "{\"model\":\"a\"", "{\"model\":\"\"}"}) {
        CAPTURE(wrong);
        std::string body = wrong;
        CHECK(!scan_request(body));
    }
}

TEST_CASE("the scanner refuses what nests deeper than engines can bear, and counts no brackets in texts") {
    const auto nested = [](size_t depth, const std::string& inner) {
        return R"({"model":"a","x":)" + std::string(depth - 1, '[') + inner + std::string(depth - 1, ']') + "}";
    };
    std::string good = nested(request_depth_max, R"("[[[\"[[")"), bad = nested(request_depth_max + 1, "1");
    std::string wide = R"({"model":"a","x":[)", texts = R"({"model":"a","x":")" + std::string(10'000, '[') + "\"}";
    for (int i = 0; i < 2000; ++i) wide += "{},";
    wide += "1]}";
    CHECK(scan_request(good));
    CHECK(scan_request(wide));
    CHECK(scan_request(texts));
    const auto refused = scan_request(bad);
    REQUIRE(!refused);
    CHECK(refused.error().limit == "request_depth");
}

TEST_CASE("members are added at the end of the object, where they win") {
    std::string body = R"( {"model":"a","x":{"lora":1},"cache_prompt":true} )" "\n";
    const auto scan = scan_request(body);
    REQUIRE(scan);
    CHECK(!scan->has_lora);
    add_members(body, R"(,"lora":[],"cache_prompt":false)");
    CHECK(body == R"( {"model":"a","x":{"lora":1},"cache_prompt":true,"lora":[],"cache_prompt":false} )" "\n");
    std::string own = R"({"model":"a","l\u006fra":[]})";
    CHECK(scan_request(own)->has_lora);
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
    const std::string begin = "HTTP/1.1 200 OK\r\n";
    for (const char* lines : {"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", "Content-Encoding: gzip\r\n",
                              "Transfer-Encoding: gzip, chunked\r\n", "Content-Length: 1\r\nContent-Length: 2\r\n"}) {
        CAPTURE(lines);
        ResponseParser unclear;
        CHECK(!unclear.feed(begin + lines + "\r\n", out));
    }
    ResponseParser huge_chunk;
    CHECK(!huge_chunk.feed(begin + "Transfer-Encoding: chunked\r\n\r\n10000000000000000\r\n", out));
    ResponseParser garbage;
    CHECK(!garbage.feed("SSH-2.0-OpenSSH_9.2\r\n\r\n", out));
}

TEST_CASE("heads and trailers that come again and again have an end") {
    std::string out, trailers = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n";
    ResponseParser patient;
    bool went_on = true;
    for (size_t bytes = 0; went_on && bytes < 2 * answer_head_bytes_max; bytes += 29) {
        went_on = patient.feed("HTTP/1.1 100 Continue\r\n\r\n", out).has_value();
    }
    CHECK(!went_on);
    while (trailers.size() < 2 * answer_head_bytes_max) trailers += "x: y\r\n";
    ResponseParser talker;
    CHECK(!talker.feed(trailers, out));
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
