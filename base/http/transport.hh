// The bytes of one accepted connection, plain or through TLS. Nothing here waits. One thread at a time.
//
// Plain is the common case and costs one comparison with null over the bare system call.
#pragma once

#include "base/fd.hh"
#include "base/http/tls.hh"

#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <memory>
#include <string_view>

namespace torpor::http {

class Transport {
  public:
    // `tls`: null for plain, otherwise on this very socket.
    Transport(Fd socket, std::unique_ptr<TlsSession> tls) : socket_(std::move(socket)), tls_(std::move(tls)) {}

    int socket() const { return socket_.get(); }
    TlsSession* tls() const { return tls_.get(); }

    // As recv(2) and send(2) with MSG_DONTWAIT; `head` goes before `rest`. For TLS see TlsSession.
    ssize_t receive(char* to, size_t size) {
        if (tls_) return tls_->receive(to, size);
        return ::recv(socket_.get(), to, size, MSG_DONTWAIT);
    }
    ssize_t send(std::string_view bytes) {
        if (tls_) return tls_->send({}, bytes);
        return ::send(socket_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    }
    ssize_t send(std::string_view head, std::string_view rest) {
        if (tls_) return tls_->send(head, rest);
        iovec parts[2] = {{const_cast<char*>(head.data()), head.size()}, {const_cast<char*>(rest.data()), rest.size()}};
        msghdr message{};
        message.msg_iov = parts;
        message.msg_iovlen = 2;
        return ::sendmsg(socket_.get(), &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    }
    // No more will be sent; the peer sees the end.
    void end_sending() {
        if (tls_) tls_->say_goodbye();
        ::shutdown(socket_.get(), SHUT_WR);
    }
    // What to poll for after EAGAIN.
    short receive_events() const { return tls_ ? tls_->receive_events() : POLLIN; }
    short send_events() const { return tls_ ? tls_->send_events() : POLLOUT; }
    // Whether receive() has bytes that no poll can see.
    bool has_pending() const { return tls_ && tls_->has_pending(); }

  private:
    Fd socket_;
    std::unique_ptr<TlsSession> tls_;  // after the socket: it says goodbye before that is closed
};

}  // namespace torpor::http
