#include "daemon/gateway/exchange.hh"

#include "daemon/gateway/limits.hh"

#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <array>
#include <cerrno>

namespace torpor::gateway {

namespace {

using Clock = std::chrono::steady_clock;

}  // namespace

Exchange::Exchange(gpu::Lease lease, int client_fd) : lease_(std::move(lease)), client_fd_(client_fd) {}

Exchange::~Exchange() {
    finish();
}

void Exchange::finish() {
    if (!lease_) return;
    if (connection_ && parser_.is_complete() && parser_.keeps_alive()) {
        lease_->connections().give_back(std::move(connection_));
    }
    connection_.reset();  // closing it is what tells the engine to stop
    lease_.reset();
}

Result<void> Exchange::wait(short events, std::chrono::milliseconds time_max) {
    const auto end = Clock::now() + time_max;
    for (;;) {
        const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(end - Clock::now());
        pollfd waits[2] = {{connection_.get(), events, 0}, {client_fd_, POLLRDHUP, 0}};
        const int count = ::poll(waits, 2, static_cast<int>(std::max<int64_t>(0, left.count())));
        if (count == 0) return fail(Kind::timeout, "the engine sent nothing for {} s", time_max.count() / 1000);
        if (count < 0) continue;
        if (waits[0].revents != 0) return {};
        if (waits[1].revents != 0) return fail(Kind::cancelled, "the client went away");
    }
}

Result<void> Exchange::send_once(std::string_view head, std::string_view body, bool& was_kept) {
    auto connection = lease_->connections().take(was_kept);
    if (!connection) return Failure(connection.error());
    connection_ = std::move(*connection);
    parser_ = ResponseParser();
    decoded_.clear();
    while (!head.empty() || !body.empty()) {
        iovec parts[2] = {{const_cast<char*>(head.data()), head.size()}, {const_cast<char*>(body.data()), body.size()}};
        msghdr message{};
        message.msg_iov = parts;
        message.msg_iovlen = 2;
        const ssize_t sent = ::sendmsg(connection_.get(), &message, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR) continue;
        if (sent < 0 && errno != EAGAIN && errno != ENOTCONN) {
            return fail_errno(Kind::engine, "the engine does not take the request");
        }
        if (sent < 0) {
            if (auto ready = wait(POLLOUT, send_stall_max); !ready) return ready;
            continue;
        }
        const size_t of_head = std::min(static_cast<size_t>(sent), head.size());
        head.remove_prefix(of_head);
        body.remove_prefix(static_cast<size_t>(sent) - of_head);
    }
    while (!parser_.has_head()) {
        if (auto received = receive(first_byte_max); !received) return received;
    }
    return {};
}

Result<void> Exchange::send(std::string_view path, std::string_view headers, std::string_view body) {
    const std::string head = fmt::format("POST {} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n{}\r\n", path,
                                         body.size(), headers);
    const auto start = Clock::now();
    bool was_kept = false;
    auto sent = send_once(head, body, was_kept);
    if (!sent && sent.error().kind == Kind::engine && was_kept && !parser_.has_head()) {
        sent = send_once(head, body, was_kept);  // the engine had closed it between two requests
    }
    first_byte_ms_ = std::chrono::duration<double, std::milli>(Clock::now() - start).count();
    return sent;
}

Result<void> Exchange::receive(std::chrono::milliseconds time_max) {
    std::array<char, piece_bytes> buffer;
    for (;;) {
        const ssize_t count = ::recv(connection_.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
        if (count > 0) return parser_.feed({buffer.data(), static_cast<size_t>(count)}, decoded_);
        if (count == 0) {
            if (!parser_.has_head()) return fail(Kind::engine, "the engine closed the connection without an answer");
            return parser_.finish();
        }
        if (errno == EINTR) continue;
        if (errno != EAGAIN) return fail_errno(Kind::engine, "the engine's connection broke");
        if (auto ready = wait(POLLIN, time_max); !ready) return ready;
    }
}

Result<std::string> Exchange::read() {
    while (decoded_.empty() && !parser_.is_complete()) {
        if (auto received = receive(stall_max); !received) return Failure(received.error());
    }
    return std::exchange(decoded_, {});
}

Result<std::string> Exchange::read_all() {
    std::string all;
    for (;;) {
        auto piece = read();
        if (!piece) return piece;
        if (piece->empty()) return all;
        if (all.size() + piece->size() > whole_answer_bytes_max) {
            return fail(Kind::too_large, "the engine's answer is larger than {} bytes", whole_answer_bytes_max);
        }
        all += *piece;
    }
}

}  // namespace torpor::gateway
