#include "gpu/probe.hh"

#include "gpu/limits.hh"

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <charconv>
#include <cstring>

namespace torpor::gpu {

namespace {

sockaddr_in loopback(int port) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

int connect_with(int fd, const void* address, size_t size) {
    return ::connect(fd, static_cast<const sockaddr*>(address), static_cast<socklen_t>(size));
}

// Whether the answer has all that its head promises. An engine may keep the connection open, though it was asked not to.
bool is_whole(std::string_view answer) {
    const size_t end = answer.find("\r\n\r\n");
    if (end == std::string_view::npos) return false;
    std::string head(answer.substr(0, end + 2));
    std::ranges::transform(head, head.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    if (head.find("\r\ntransfer-encoding: chunked\r\n") != std::string::npos) return answer.ends_with("\r\n0\r\n\r\n");
    constexpr std::string_view name = "\r\ncontent-length:";
    size_t at = head.find(name);
    if (at == std::string::npos) return false;
    at = head.find_first_not_of(' ', at + name.size());
    uint64_t length = 0;
    const auto [after, code] = std::from_chars(head.data() + at, head.data() + head.size(), length);
    return code == std::errc{} && answer.size() - end - 4 >= length;
}

int status_in(std::string_view answer) {
    int status = 0;
    if (answer.starts_with("HTTP/1.") && answer.size() > 12) std::from_chars(&answer[9], &answer[12], status);
    return status;
}

}  // namespace

Result<Fd> connect_to(const Endpoint& endpoint) {
    const bool is_unix = !endpoint.socket.empty();
    Fd fd(::socket(is_unix ? AF_UNIX : AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!fd) return fail_errno(Kind::internal, "cannot make a socket");
    int code = 0;
    if (is_unix) {
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        if (endpoint.socket.size() >= sizeof address.sun_path) {
            return fail(Kind::invalid, "{} is too long for a socket's path", endpoint.socket);
        }
        std::memcpy(address.sun_path, endpoint.socket.c_str(), endpoint.socket.size() + 1);
        code = connect_with(fd.get(), &address, sizeof address);
    } else {
        const sockaddr_in address = loopback(endpoint.port);
        const int on = 1;
        ::setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        code = connect_with(fd.get(), &address, sizeof address);
    }
    if (code != 0 && errno == EAGAIN) return fail(Kind::busy, "the worker has not accepted earlier connections yet");
    if (code != 0 && errno != EINPROGRESS) return fail_errno(Kind::engine, "the worker does not accept connections");
    return fd;
}

Result<int> free_port() {
    Fd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address = loopback(0);
    socklen_t size = sizeof address;
    if (!fd || ::bind(fd.get(), reinterpret_cast<sockaddr*>(&address), size) != 0 ||
        ::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&address), &size) != 0) {
        return fail_errno(Kind::internal, "cannot find a free port");
    }
    return ntohs(address.sin_port);
}

Probe::Probe(EventLoop& loop, const Endpoint& endpoint, const std::string& path, const std::string& body, OnStatus on_status,
             std::chrono::milliseconds time_max)
    : on_status_(std::move(on_status)), deadline_(loop) {
    request_ = fmt::format("{} {} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n", body.empty() ? "GET" : "POST", path);
    request_ += key_header(endpoint);
    if (!body.empty()) {
        request_ += fmt::format("Content-Type: application/json\r\nContent-Length: {}\r\n", body.size());
    }
    request_ += "\r\n" + body;
    auto socket = connect_to(endpoint);
    if (!socket) {
        // Called back from the loop, never from within the constructor.
        deadline_.start(std::chrono::milliseconds(0), [this] { finish(0); });
        return;
    }
    socket_ = std::move(*socket);
    deadline_.start(time_max, [this] { finish(0); });
    watch_ = std::make_unique<Watch>(loop, socket_.get(), UV_READABLE | UV_WRITABLE, [this] { on_ready(); });
    loop_ = &loop;
}

Probe::~Probe() {
    watch_.reset();  // before the socket that it watches is closed
}

std::string Probe::body() const {
    const size_t end = answer_.find("\r\n\r\n");
    return end == std::string::npos ? "" : answer_.substr(end + 4);
}

void Probe::on_ready() {
    if (!request_.empty()) {
        const ssize_t sent = ::send(socket_.get(), request_.data(), request_.size(), MSG_NOSIGNAL);
        if (sent < 0 && errno != EAGAIN && errno != EINTR) return finish(0);
        if (sent > 0) request_.erase(0, static_cast<size_t>(sent));
        if (!request_.empty()) return;
        watch_.reset();  // libuv takes one watch a descriptor
        watch_ = std::make_unique<Watch>(*loop_, socket_.get(), UV_READABLE, [this] { on_ready(); });
        return;
    }
    char buffer[4096];
    const ssize_t count = ::recv(socket_.get(), buffer, sizeof buffer, 0);
    if (count < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (count > 0 && answer_.size() < probe_answer_bytes_max) {
        answer_.append(buffer, static_cast<size_t>(count));
        if (!is_whole(answer_)) return;
    }
    finish(status_in(answer_));
}

void Probe::finish(int status) {
    watch_.reset();
    socket_.reset();  // at once: a connection that lingers would have to be in an image
    deadline_.cancel();
    if (const auto on_status = std::move(on_status_)) on_status(status);  // may destroy this
}

}  // namespace torpor::gpu
