// [http] of config.toml: addresses, the rule for other machines, booleans and lists.
#include "daemon/config.hh"

#include <doctest/doctest.h>

using namespace torpor;

namespace {

Result<Config> read(const std::string& lines) {
    return parse_config("[http]\n" + lines, "config.toml");
}

std::string mistake(const std::string& lines) {
    const auto config = read(lines);
    return config ? "none" : config.error().message;
}

bool has(const std::string& text, std::string_view words) {
    return text.find(words) != std::string::npos;
}

}  // namespace

TEST_CASE("tcp is a number with a port, or off") {
    CHECK(read("tcp = 'localhost:1'")->http.tcp == TcpAddress{"127.0.0.1", 1});
    CHECK(read("tcp = '127.0.0.2:65535'")->http.tcp->text() == "127.0.0.2:65535");
    CHECK(read("tcp = '[0::1]:80'")->http.tcp->text() == "[::1]:80");
    CHECK(!read("tcp = 'off'")->http.tcp);
    for (const char* wrong : {"", "7117", "127.0.0.1", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:65536", "127.0.0.1:-1", "::1:7117",
                              "[::1]", "box.example.org:7117", "127.0.0.1:80x", ":7117"}) {
        CAPTURE(wrong);
        CHECK(has(mistake(std::string("tcp = '") + wrong + "'"), "config.toml:2: tcp: '"));
    }
}

TEST_CASE("other machines may reach the port with a certificate, or where somebody said so") {
    for (const char* tcp : {"tcp = '0.0.0.0:7117'\n", "tcp = '[::]:7117'\n", "tcp = '192.168.1.5:7117'\n", "tcp = '[2001:db8::1]:7117'\n"}) {
        CAPTURE(tcp);
        CHECK(has(mistake(tcp), "config.toml:1: [http]: other machines can reach "));
        CHECK(has(mistake(std::string(tcp) + "allow_plain_http = false"), "allow_plain_http = true"));
        CHECK(mistake(std::string(tcp) + "allow_plain_http = true") == "none");
        CHECK(mistake(std::string(tcp) + "certificate = 'c.pem'\nkey = 'k.pem'") == "none");
    }
    CHECK(mistake("tcp = '[::ffff:127.0.0.1]:7117'") == "none");
    CHECK(has(mistake("certificate = 'c.pem'"), "there is no key"));
    CHECK(has(mistake("key = 'k.pem'"), "there is no certificate"));
    CHECK(has(mistake("certificate = ''\nkey = 'k.pem'"), "config.toml:2: certificate: "));
}

TEST_CASE("hosts are names and numbers alone") {
    const auto config = read("hosts = ['Box.Example.org', '[2001:DB8::1]', '10.0.0.1']");
    REQUIRE(config);
    CHECK(config->http.hosts == std::vector<std::string>{"box.example.org", "2001:db8::1", "10.0.0.1"});
    for (const char* wrong : {"", "https://box", "box:7117", "*.example.org", "a b"}) {
        CAPTURE(wrong);
        CHECK(has(mistake(std::string("hosts = ['") + wrong + "']"), "config.toml:2: hosts: '"));
    }
}

TEST_CASE("a value of another kind is said with its line") {
    CHECK(has(mistake("allow_plain_http = 'yes'"), "config.toml:2: allow_plain_http: must be true or false"));
    CHECK(has(mistake("allow_plain_http = 1"), "must be true or false"));
    CHECK(has(mistake("hosts = 'box'"), "config.toml:2: hosts: must be a list of texts"));
    CHECK(has(mistake("hosts = [1]"), "must be a list of texts"));
    CHECK(has(mistake("tcp = true"), "must be a text in quotes or a whole number"));
    CHECK(has(mistake("tcp = ['off']"), "must be a text in quotes or a whole number"));
}
