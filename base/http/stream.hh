// The bytes of one accepted connection, as cpp-httplib's Server wants them.
#pragma once

#include "base/http/transport.hh"
#include "base/limits.hh"

#include <httplib.h>

#include <chrono>
#include <string>

namespace torpor::http {

// Buffers what was read ahead, holds a response's head back until its first content (or flush()) so that
// both leave in one packet, and never waits longer than its named limits. One thread at a time.
class SocketStream final : public httplib::Stream {
  public:
    SocketStream(Transport transport, const Limits& limits);

    bool is_tls() const { return transport_.tls() != nullptr; }
    // Before anything else on a TLS connection: a step of its handshake, without waiting. Who speaks plain HTTP
    // gets a 400 that says so.
    bool is_shaking_hands() const { return is_tls() && transport_.tls()->is_shaking_hands(); }
    TlsSession::Handshake shake_hands();
    // What to poll for until shake_hands() or fill() can go on: POLLIN, and seldom POLLOUT.
    short receive_events() const { return transport_.receive_events(); }
    // As that, once send_some() took none: POLLOUT, and seldom POLLIN.
    short send_events() const { return transport_.send_events(); }

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
    // Whether bytes have come that no poll will tell of.
    bool has_input() const { return in_start_ != in_.size() || transport_.has_pending(); }
    // Starts holding back the next write.
    void begin_response() {
        hold_next_ = true;
        muted_ = false;
    }
    // Reads what is there, waiting for it no longer than this: the number of bytes, 0 at the stream's end, -1 with
    // has_stalled() if nothing came, -1 if the connection broke.
    ssize_t read_within(char* to, size_t size, std::chrono::milliseconds wait);
    // Throws away what has come and not been read. False when the peer has closed, too.
    bool discard();
    // No more will be sent; the peer sees the end.
    void end_sending();
    // Sends what is held back. False if the peer is gone or took nothing for limits_.client_stall.
    bool flush();
    bool is_broken() const { return broken_; }
    // Whether the last read ended because nothing came in time.
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
    socket_t socket() const override { return transport_.socket(); }
    time_t duration() const override { return 0; }

  private:
    bool send_all(std::string_view head, std::string_view rest);

    Transport transport_;
    const Limits& limits_;
    std::string in_;
    size_t in_start_ = 0;
    std::string held_;
    bool hold_next_ = false;
    bool muted_ = false;
    bool stalled_ = false;
    bool broken_ = false;
};

}  // namespace torpor::http
