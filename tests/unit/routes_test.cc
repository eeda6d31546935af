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
    CHECK(match_route(routes(), "GET", "/v1/messages").allowed == "POST");
    CHECK(match_route(routes(), "PUT", "/api/models/x").allowed == "GET, HEAD, DELETE");
    CHECK(match_route(routes(), "GET", "/api/models/x").allowed.empty());
    CHECK(match_route(routes(), "PUT", "/nowhere").allowed.empty());
    CHECK(match_route(routes(), "GET", "/v1/models/" + std::string(4096, 'x')).route == nullptr);
}

TEST_CASE("only loopback names pass as Host and Origin where nothing else is configured") {
    const HostNames none;
    for (const char* host : {"127.0.0.1:7117", "localhost", "LocalHost:1", "[::1]:80", "[0:0::1]"}) {
        CAPTURE(host);
        CHECK(is_our_host(host, none));
    }
    for (const char* host : {"", "example.com", "127.0.0.1.example.com", "localhost.example.com:7117", "[::1]x", "[::1", "::1", "10.0.0.1"}) {
        CAPTURE(host);
        CHECK(!is_our_host(host, none));
    }
    CHECK(is_our_origin("http://localhost:3000", none));
    CHECK(!is_our_origin("null", none));
    CHECK(!is_our_origin("https://example.com", none));
}

TEST_CASE("names of [http] hosts pass, too, and any number where all addresses are listened on") {
    const HostNames some{{"box.example.org", "2001:db8::1"}, false};
    for (const char* host : {"box.example.org", "BOX.example.org:7117", "[2001:DB8::1]:7117"}) {
        CAPTURE(host);
        CHECK(is_our_host(host, some));
        CHECK(is_our_origin(std::string("https://") + host, some));
    }
    for (const char* host : {"example.org", "box.example.org.evil.net", "evil.net:7117", "10.0.0.1:7117", "[2001:db8::2]"}) {
        CAPTURE(host);
        CHECK(!is_our_host(host, some));
    }
    const HostNames all{{}, true};
    CHECK(is_our_host("10.0.0.1:7117", all));
    CHECK(is_our_host("[2001:db8::2]:7117", all));
    CHECK(!is_our_host("box.example.org", all));
    CHECK(!is_our_origin("http://10.0.0.1", all));
}
