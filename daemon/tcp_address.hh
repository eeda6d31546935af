// Where the TCP port listens: a number of this machine and a port.
#pragma once

#include "base/error.hh"

#include <string>
#include <string_view>

namespace torpor {

struct TcpAddress {
    std::string host;  // as number_of() gives it
    int port = 0;

    bool operator==(const TcpAddress&) const = default;
    // Whether other machines cannot reach it.
    bool is_loopback() const;
    // Whether it is all addresses that this machine has.
    bool is_any() const;
    // "127.0.0.1:7117", "[::1]:7117"
    std::string text() const;
};

// HOST:PORT; HOST is an IPv4 number, an IPv6 one in brackets, or localhost for 127.0.0.1.
Result<TcpAddress> parse_tcp_address(std::string_view text);

// An IPv4 or IPv6 number as the system writes it, without brackets ("::1" for "[0::1]"); empty if it is none.
std::string number_of(std::string_view host);

}  // namespace torpor
