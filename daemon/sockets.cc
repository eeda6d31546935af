#include "daemon/sockets.hh"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <cstring>

namespace torpor {

namespace {

constexpr int backlog = 1024;  // a burst of terminals; the kernel's own cap is 4096

Result<sockaddr_un> unix_address(std::string_view path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path.size() >= sizeof address.sun_path) return fail(Kind::invalid, "{} is too long for a socket's path", path);
    std::memcpy(address.sun_path, path.data(), path.size());
    return address;
}

bool somebody_answers(const sockaddr_un& address) {
    Fd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    return ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0 || errno == EAGAIN;
}

}  // namespace

Result<Fd> listen_on_socket(const std::filesystem::path& path) {
    auto address = unix_address(path.string());
    if (!address) return Failure(address.error());
    if (somebody_answers(*address)) {
        return fail(Kind::conflict, "another program answers on {}", path.string());
    }
    ::unlink(path.c_str());
    Fd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!fd) return fail_errno(Kind::internal, "cannot make a socket");
    const mode_t before = ::umask(0177);  // the file comes out 0600, at no moment wider
    const int bound = ::bind(fd.get(), reinterpret_cast<const sockaddr*>(&*address), sizeof *address);
    ::umask(before);
    if (bound != 0 || ::listen(fd.get(), backlog) != 0) {
        return fail_errno(Kind::internal, fmt::format("cannot listen on {}", path.string()));
    }
    return fd;
}

Result<Fd> listen_on_tcp(const TcpAddress& where) {
    sockaddr_in6 v6{};
    sockaddr_in v4{};
    v6.sin6_family = AF_INET6;
    v4.sin_family = AF_INET;
    v6.sin6_port = v4.sin_port = htons(static_cast<uint16_t>(where.port));
    const bool is_v6 = ::inet_pton(AF_INET6, where.host.c_str(), &v6.sin6_addr) == 1;
    if (!is_v6) ::inet_pton(AF_INET, where.host.c_str(), &v4.sin_addr);
    const auto* address = is_v6 ? reinterpret_cast<const sockaddr*>(&v6) : reinterpret_cast<const sockaddr*>(&v4);

    Fd fd(::socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!fd) return fail_errno(Kind::conflict, fmt::format("cannot listen on {}", where.text()));
    const int on = 1, off = 0;
    ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (is_v6) ::setsockopt(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
    if (::bind(fd.get(), address, is_v6 ? sizeof v6 : sizeof v4) != 0 || ::listen(fd.get(), backlog) != 0) {
        return fail_errno(Kind::conflict, fmt::format("cannot listen on {}", where.text()));
    }
    return fd;
}

Fd socket_from_service_manager() {
    constexpr int first_fd = 3;
    const char* pid = std::getenv("LISTEN_PID");
    const char* count = std::getenv("LISTEN_FDS");
    const bool is_for_us = pid != nullptr && count != nullptr && std::atol(pid) == ::getpid() && std::atol(count) >= 1;
    ::unsetenv("LISTEN_PID");
    ::unsetenv("LISTEN_FDS");
    ::unsetenv("LISTEN_FDNAMES");
    if (!is_for_us) return {};
    ::fcntl(first_fd, F_SETFD, FD_CLOEXEC);
    ::fcntl(first_fd, F_SETFL, ::fcntl(first_fd, F_GETFL) | O_NONBLOCK);
    return Fd(first_fd);
}

void notify_service_manager(std::string_view state) {
    const char* path = std::getenv("NOTIFY_SOCKET");
    if (path == nullptr || (path[0] != '/' && path[0] != '@')) return;
    auto address = unix_address(path);
    if (!address) return;
    const size_t size = offsetof(sockaddr_un, sun_path) + std::strlen(path);
    if (address->sun_path[0] == '@') address->sun_path[0] = '\0';
    Fd fd(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    (void)::sendto(fd.get(), state.data(), state.size(), MSG_NOSIGNAL, reinterpret_cast<const sockaddr*>(&*address),
                   static_cast<socklen_t>(size));
}

}  // namespace torpor
