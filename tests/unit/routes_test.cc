#include "daemon/access.hh"
#include "daemon/routes.hh"

#include <doctest/doctest.h>

using namespace torpor;

TEST_CASE("every route is found by its own pattern and needs more than nothing unless it is a probe") {
    for (const Route& route : routes()) {
        std::string path(route.pattern);
        for (size_t at = 0; (at = path.find('{')) != std::string::npos;) path.replace(at, path.find('}') - at + 1, "x");
        const char* method = route.method == Method::get ? "GET" : route.method == Method::post ? "POST" : "DELETE";
        CAPTURE(path);
        CHECK(match_route(routes(), method, path).route == &route);
        CHECK((route.scope != Scope::open || path == "/healthz" || path == "/readyz"));
    }
}

TEST_CASE("paths that are no routes match nothing") {
    for (const char* path : {"", "/", "//", "/v1", "/v1/chat", "/v1/chat/completions/", "/api/models//logs", "v1/models"}) {
        CAPTURE(path);
        CHECK(match_route(routes(), "GET", path).route == nullptr);
    }
    CHECK(match_route(routes(), "GET", "/v1/messages").other_method);
    CHECK(match_route(routes(), "GET", "/v1/models/" + std::string(4096, 'x')).route == nullptr);
}

TEST_CASE("only loopback names pass as Host and Origin") {
    CHECK(is_loopback_host("127.0.0.1:7117"));
    CHECK(is_loopback_host("localhost"));
    CHECK(is_loopback_host("[::1]:80"));
    for (const char* host : {"", "example.com", "127.0.0.1.example.com", "localhost.example.com:7117", "[::1]x"}) {
        CAPTURE(host);
        CHECK(!is_loopback_host(host));
    }
    CHECK(is_loopback_origin("http://localhost:3000"));
    CHECK(!is_loopback_origin("null"));
    CHECK(!is_loopback_origin("https://example.com"));
}
