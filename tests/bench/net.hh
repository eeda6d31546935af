// What the fake upstream and the load client share: addresses, sockets, the clock.
#pragma once

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <string>

namespace torpor::bench {

// Shared by all processes of the machine, so that one may subtract another's time from its own.
inline int64_t now_ns() {
    timespec time{};
    ::clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1'000'000'000LL + time.tv_nsec;
}

[[noreturn]] inline void die(const std::string& what) {
    std::fprintf(stderr, "%s: %s\n", what.c_str(), std::strerror(errno));
    std::exit(1);
}

// A path with a slash is a unix socket, anything else HOST:PORT or PORT on loopback.
struct Address {
    sockaddr_storage bytes{};
    socklen_t size = 0;
    bool is_unix = false;
};

inline Address parse_address(const std::string& text) {
    Address address;
    address.is_unix = text.find('/') != std::string::npos;
    if (address.is_unix) {
        auto* unix_address = reinterpret_cast<sockaddr_un*>(&address.bytes);
        unix_address->sun_family = AF_UNIX;
        if (text.size() >= sizeof unix_address->sun_path) die(text + " is too long for a socket's path");
        std::memcpy(unix_address->sun_path, text.c_str(), text.size() + 1);
        address.size = sizeof *unix_address;
        return address;
    }
    const size_t colon = text.find(':');
    auto* tcp = reinterpret_cast<sockaddr_in*>(&address.bytes);
    tcp->sin_family = AF_INET;
    tcp->sin_port = htons(static_cast<uint16_t>(std::atoi(text.c_str() + (colon == std::string::npos ? 0 : colon + 1))));
    const std::string host = colon == std::string::npos ? "127.0.0.1" : text.substr(0, colon);
    if (::inet_pton(AF_INET, host.c_str(), &tcp->sin_addr) != 1) die(text + " is not an address");
    address.size = sizeof *tcp;
    return address;
}

inline void without_delay(int fd, const Address& address) {
    const int on = 1;
    if (!address.is_unix) ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

// Thousands of connections need as many descriptors.
inline void lift_descriptor_limit() {
    rlimit limit{};
    ::getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    ::setrlimit(RLIMIT_NOFILE, &limit);
}

// The number that follows `key` in `text`, or `otherwise`.
inline int64_t number_after(const std::string& text, const std::string& key, int64_t otherwise) {
    const size_t at = text.find(key);
    return at == std::string::npos ? otherwise : std::atoll(text.c_str() + at + key.size());
}

}  // namespace torpor::bench
