// The bytes of one accepted connection, as cpp-httplib's Server wants them.
#pragma once

#include "base/fd.hh"
#include "base/limits.hh"

#include <httplib.h>

#include <chrono>
#include <string>

namespace torpor::http {

// Buffers what was read ahead, holds a response's head back until its first content (or flush()) so that
// both leave in one packet, and never waits longer than its named limits. One thread at a time.
class SocketStream final : public httplib::Stream {
  public:
    SocketStream(Fd socket, const Limits& limits);

    // Reads what is there without waiting. False when the peer has closed or the connection is broken.
    bool fill();
    // Gives the buffer back to the system, if nothing is in it: the connection is about to be idle.
    void rest() {
        if (in_start_ != in_.size()) return;
        std::string().swap(in_);
        in_start_ = 0;
    }
    // Bytes received and not yet consumed.
    std::string_view buffered() const { return std::string_view(in_).substr(in_start_); }
    // Starts holding back the next write.
    void begin_response() {
        hold_next_ = true;
        has_body_ = true;
        muted_ = false;
    }
    // The request has no body: reads end at once. cpp-httplib would wait for one after a DELETE.
    void expect_no_body() { has_body_ = false; }
    // Sends what is held back. False if the peer is gone or took nothing for limits_.client_stall.
    bool flush();
    bool is_broken() const { return broken_; }
    // Whether a read ended because nothing came for body_stall.
    bool has_stalled() const { return stalled_; }
    // From now on writes go nowhere, until begin_response().
    void mute() { muted_ = true; }
    // Sends what the peer takes without waiting: the number of bytes, 0 if it takes none, -1 if it is gone.
    ssize_t send_some(std::string_view bytes);

    bool is_readable() const override;
    bool wait_readable() const override;
    bool wait_writable() const override;
    ssize_t read(char* ptr, size_t size) override;
    ssize_t write(const char* ptr, size_t size) override;
    // The peer's address without its port, "127.0.0.1" or "::1"; empty on a Unix socket. Asks the system.
    std::string peer_address() const;
    void get_remote_ip_and_port(std::string& ip, int& port) const override;
    void get_local_ip_and_port(std::string& ip, int& port) const override;
    socket_t socket() const override { return socket_.get(); }
    time_t duration() const override { return 0; }

  private:
    bool send_all(std::string_view head, std::string_view rest);

    Fd socket_;
    const Limits& limits_;
    std::string in_;
    size_t in_start_ = 0;
    std::string held_;
    bool hold_next_ = false;
    bool has_body_ = true;
    bool muted_ = false;
    bool stalled_ = false;
    bool broken_ = false;
};

}  // namespace torpor::http
