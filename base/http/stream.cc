#include "base/http/stream.hh"

#include "base/limits.hh"

#include <arpa/inet.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <array>
#include <cerrno>
#include <cstring>

namespace torpor::http {

namespace {

constexpr size_t read_bytes = 16 * 1024;
constexpr size_t held_bytes_max = 8 * 1024;

bool wait_for(int fd, short events, std::chrono::milliseconds timeout) {
    pollfd wait{fd, events, 0};
    int count = 0;
    do {
        count = ::poll(&wait, 1, static_cast<int>(timeout.count()));
    } while (count < 0 && errno == EINTR);
    return count > 0;
}

}  // namespace

SocketStream::SocketStream(Fd socket, const Limits& limits) : socket_(std::move(socket)), limits_(limits) {}

bool SocketStream::fill() {
    if (in_start_ == in_.size()) {
        in_.clear();
        in_start_ = 0;
    }
    for (;;) {
        const size_t had = in_.size();
        in_.resize(had + read_bytes);
        const ssize_t count = ::recv(socket_.get(), in_.data() + had, read_bytes, MSG_DONTWAIT);
        in_.resize(had + static_cast<size_t>(count > 0 ? count : 0));
        if (count == 0) return false;
        if (count < 0 && errno == EINTR) continue;
        if (count < 0) return errno == EAGAIN;
        if (static_cast<size_t>(count) < read_bytes || buffered().size() >= request_head_bytes_max) return true;
    }
}

bool SocketStream::is_readable() const {
    return has_body_ && in_start_ < in_.size();
}

bool SocketStream::wait_readable() const {
    return is_readable() || wait_for(socket_.get(), POLLIN, limits_.body_stall);
}

bool SocketStream::wait_writable() const {
    return !broken_ && wait_for(socket_.get(), POLLOUT, limits_.client_stall);
}

ssize_t SocketStream::read(char* ptr, size_t size) {
    if (!has_body_) return 0;
    if (in_start_ == in_.size()) {
        // Large bodies go straight to the caller; small reads through the buffer.
        for (;;) {
            if (!wait_for(socket_.get(), POLLIN, limits_.body_stall)) {
                stalled_ = true;
                return -1;
            }
            if (size >= read_bytes) {
                const ssize_t count = ::recv(socket_.get(), ptr, size, MSG_DONTWAIT);
                if (count < 0 && (errno == EINTR || errno == EAGAIN)) continue;
                return count;
            }
            if (!fill()) return 0;
            if (in_start_ < in_.size()) break;
        }
    }
    const size_t count = std::min(size, in_.size() - in_start_);
    std::memcpy(ptr, in_.data() + in_start_, count);
    in_start_ += count;
    return static_cast<ssize_t>(count);
}

ssize_t SocketStream::write(const char* ptr, size_t size) {
    if (muted_) return static_cast<ssize_t>(size);
    if (hold_next_ && size <= held_bytes_max) {
        hold_next_ = false;
        held_.assign(ptr, size);
        return static_cast<ssize_t>(size);
    }
    hold_next_ = false;
    const std::string head = std::move(held_);
    held_.clear();
    return send_all(head, {ptr, size}) ? static_cast<ssize_t>(size) : -1;
}

bool SocketStream::flush() {
    if (held_.empty()) return !broken_;
    const std::string head = std::move(held_);
    held_.clear();
    return send_all(head, {});
}

bool SocketStream::send_all(std::string_view head, std::string_view rest) {
    while (!broken_ && !(head.empty() && rest.empty())) {
        iovec parts[2] = {{const_cast<char*>(head.data()), head.size()}, {const_cast<char*>(rest.data()), rest.size()}};
        msghdr message{};
        message.msg_iov = parts;
        message.msg_iovlen = 2;
        const ssize_t sent = ::sendmsg(socket_.get(), &message, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0) {
            if (errno == EINTR) continue;
            if (errno != EAGAIN || !wait_for(socket_.get(), POLLOUT, limits_.client_stall)) broken_ = true;
            continue;
        }
        const size_t count = static_cast<size_t>(sent);
        const size_t of_head = std::min(count, head.size());
        head.remove_prefix(of_head);
        rest.remove_prefix(count - of_head);
    }
    return !broken_;
}

ssize_t SocketStream::send_some(std::string_view bytes) {
    for (;;) {
        const ssize_t sent = ::send(socket_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent >= 0) return sent;
        if (errno == EINTR) continue;
        if (errno == EAGAIN) return 0;
        broken_ = true;
        return -1;
    }
}

std::string SocketStream::peer_address() const {
    sockaddr_storage address{};
    socklen_t size = sizeof address;
    if (::getpeername(socket_.get(), reinterpret_cast<sockaddr*>(&address), &size) != 0) return {};
    const void* bytes = nullptr;
    if (address.ss_family == AF_INET) bytes = &reinterpret_cast<const sockaddr_in*>(&address)->sin_addr;
    if (address.ss_family == AF_INET6) bytes = &reinterpret_cast<const sockaddr_in6*>(&address)->sin6_addr;
    std::array<char, INET6_ADDRSTRLEN> text{};
    if (bytes == nullptr || ::inet_ntop(address.ss_family, bytes, text.data(), text.size()) == nullptr) return {};
    return text.data();
}

// Asked with every request, and of no use to most: see peer_address().
void SocketStream::get_remote_ip_and_port(std::string& ip, int& port) const {
    ip.clear();
    port = 0;
}

void SocketStream::get_local_ip_and_port(std::string& ip, int& port) const {
    ip.clear();
    port = 0;
}

}  // namespace torpor::http
