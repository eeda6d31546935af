#include "daemon/tcp_address.hh"

#include <arpa/inet.h>
#include <netinet/in.h>

#include <array>
#include <charconv>

namespace torpor {

bool TcpAddress::is_loopback() const {
    return host.starts_with("127.") || host == "::1" || host.starts_with("::ffff:127.");
}

bool TcpAddress::is_any() const {
    return host == "0.0.0.0" || host == "::";
}

std::string TcpAddress::text() const {
    return host.find(':') == std::string::npos ? fmt::format("{}:{}", host, port) : fmt::format("[{}]:{}", host, port);
}

std::string number_of(std::string_view host) {
    if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
    const std::string text(host);
    const int family = text.find(':') == std::string::npos ? AF_INET : AF_INET6;
    std::array<unsigned char, sizeof(in6_addr)> number{};
    std::array<char, INET6_ADDRSTRLEN> written{};
    if (::inet_pton(family, text.c_str(), number.data()) != 1) return {};
    ::inet_ntop(family, number.data(), written.data(), written.size());
    return written.data();
}

Result<TcpAddress> parse_tcp_address(std::string_view text) {
    const size_t colon = text.rfind(':');
    TcpAddress address;
    int port = -1;
    if (colon != std::string_view::npos) {
        const char* end = text.data() + text.size();
        const auto [stopped, code] = std::from_chars(text.data() + colon + 1, end, port);
        if (code != std::errc{} || stopped != end) port = -1;
        const std::string_view host = text.substr(0, colon);
        const bool is_bare = host.find(':') != std::string_view::npos && !host.starts_with('[');  // where would the port begin?
        address.host = host == "localhost" ? "127.0.0.1" : is_bare ? "" : number_of(host);
    }
    if (address.host.empty() || port < 0 || port > 65535) {
        return fail(Kind::invalid, "'{}' is not an address with a port, like 127.0.0.1:7117, 0.0.0.0:7117 or [::1]:7117", text);
    }
    address.port = port;
    return address;
}

}  // namespace torpor
