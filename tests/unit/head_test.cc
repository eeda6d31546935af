#include "base/http/head.hh"
#include "base/limits.hh"

#include <doctest/doctest.h>

using namespace torpor;
using namespace torpor::http;

namespace {

int status_of(const std::string& lines, const std::string& request_line = "POST /v1/messages HTTP/1.1") {
    const auto framing = check_head(request_line + "\r\n" + lines + "\r\n");
    return framing ? 200 : framing.error().status;
}

std::string of_length(size_t bytes) {
    return std::string(bytes, 'x');
}

}  // namespace

TEST_CASE("a good head says how long the body is") {
    const auto none = check_head("GET /healthz?x=y HTTP/1.0\r\n\r\n");
    REQUIRE(none);
    CHECK(!none->has_body());
    const auto counted = check_head("POST / HTTP/1.1\r\nHost: a\r\nx:\r\ncontent-LENGTH: \t17 \r\nContent-Length: 17\r\n\r\n");
    REQUIRE(counted);
    CHECK(counted->bytes == 17);
    const auto chunked = check_head("POST / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n");
    REQUIRE(chunked);
    CHECK(chunked->is_chunked);
}

TEST_CASE("what two readers could take for two different bodies is refused") {
    for (const char* lines :
         {"Content-Length: 5\r\nContent-Length: 6\r\n", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
          "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n", "Content-Length: -1\r\n", "Content-Length: +1\r\n",
          "Content-Length: 0x10\r\n", "Content-Length: 5, 5\r\n", "Content-Length:\r\n", "Content-Length: 99999999999999999999\r\n",
          "Transfer-Encoding: gzip\r\n", "Transfer-Encoding: gzip, chunked\r\n", "Transfer-Encoding: identity\r\n",
          "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "Transfer-Encoding: \vchunked\r\n",
          "Content-Length : 5\r\n", "x: a\r\n b\r\n", "x: a\nContent-Length: 5\r\n", "x: a\rb\r\n", ": x\r\n", "x\r\n",
          "Host: a\r\nHost: b\r\n"}) {
        CAPTURE(lines);
        CHECK(status_of(lines) == 400);
    }
    CHECK(status_of("x: a" + std::string(1, '\0') + "b\r\n") == 400);
    CHECK(status_of("Transfer-Encoding: chunked\r\n", "POST / HTTP/1.0") == 400);
}

TEST_CASE("a request line is a method, a path and a version that is spoken") {
    for (const char* line : {"", "GET", "GET /", "/ HTTP/1.1", "GET http://localhost/ HTTP/1.1", "CONNECT localhost:80 HTTP/1.1",
                             "OPTIONS * HTTP/1.1", "GET  / HTTP/1.1", "GET / x HTTP/1.1", "GET / http/1.1", "G\tT / HTTP/1.1"}) {
        CAPTURE(line);
        CHECK(status_of("", line) == 400);
    }
    CHECK(status_of("", std::string("GET /a") + '\0' + " HTTP/1.1") == 400);
    CHECK(status_of("", "PRI * HTTP/2.0") == 505);
    CHECK(status_of("", "GET / HTTP/1.2") == 505);
}

TEST_CASE("lines have limits, and words that name them") {
    std::string lines;
    for (size_t i = 0; i < request_header_lines_max; ++i) lines += "x: y\r\n";
    CHECK(status_of(lines) == 200);
    CHECK(status_of(lines + "x: y\r\n") == 431);
    CHECK(status_of("x:" + of_length(request_line_bytes_max - 2) + "\r\n") == 200);
    CHECK(status_of("x:" + of_length(request_line_bytes_max - 1) + "\r\n") == 431);
    CHECK(status_of("", "GET /" + of_length(request_target_bytes_max - 1) + " HTTP/1.1") == 200);
    CHECK(status_of("", "GET /" + of_length(request_target_bytes_max) + " HTTP/1.1") == 414);
}

TEST_CASE("a head that will never be good is refused before it is whole") {
    const auto status = [](const std::string& bytes) {
        const auto refusal = check_partial_head(bytes);
        return refusal ? refusal->status : 0;
    };
    CHECK(status("") == 0);
    CHECK(status("GE") == 0);
    CHECK(status("GET / HTTP/1.1\r\nx: y\r") == 0);
    CHECK(status("GET / HTTP/1.1\n") == 400);
    CHECK(status("\x16\x03\x01") == 400);  // TLS
    CHECK(status("GET /" + of_length(3000)) == 414);
    CHECK(status("GET / HTTP/1.1\r\nx: " + of_length(3000)) == 0);
    CHECK(status("GET / HTTP/1.1\r\nx: " + of_length(request_head_bytes_max)) == 431);
    CHECK(path_in("POST /v1/messages?a=b HTTP/1.1\r\n") == "/v1/messages");
    CHECK(path_in("POST /v1/mess") == "/v1/mess");
    CHECK(path_in("POST").empty());
}
