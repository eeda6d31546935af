// TLS for the TCP port: a certificate with its key, and the session of one connection. TLS 1.2 at least, HTTP/1.1
// alone, no renegotiation, no session kept here (tickets are the client's to keep).
#pragma once

#include "base/error.hh"

#include <sys/types.h>

#include <chrono>
#include <filesystem>
#include <memory>
#include <string_view>

struct ssl_ctx_st;  // OpenSSL's own, whose headers stay in tls.cc
struct ssl_st;

namespace torpor::http {

// A certificate's chain and its key, checked and ready. Constant, so any thread; a session keeps what it needs of it.
class Certificate {
    struct Passkey {};

  public:
    using Time = std::chrono::system_clock::time_point;

    // Two PEM files: the server's own certificate and then those between it and its root; the key, unencrypted.
    // Errors (`invalid`) name the file and the reason: not readable, not PEM, a key of another certificate, a key that
    // others may read. An expired certificate is taken; see the times.
    static Result<std::shared_ptr<const Certificate>> load(const std::filesystem::path& chain, const std::filesystem::path& key);

    Certificate(Passkey, ssl_ctx_st* context) : context_(context) {}  // use load()
    ~Certificate();
    Certificate(const Certificate&) = delete;
    Certificate& operator=(const Certificate&) = delete;

    // When it is valid.
    Time begins() const { return begins_; }
    Time ends() const { return ends_; }
    ssl_ctx_st* context() const { return context_; }

  private:
    ssl_ctx_st* context_;  // owned
    Time begins_, ends_;
};

// The server's side of one connection. Nothing here waits. One thread at a time.
class TlsSession {
  public:
    // `socket`: accepted, non-blocking, and closed only after the session is gone.
    TlsSession(const Certificate& certificate, int socket);
    ~TlsSession();
    TlsSession(const TlsSession&) = delete;
    TlsSession& operator=(const TlsSession&) = delete;

    enum class Handshake { done, waits, failed, is_plain_http };
    // A step further; `waits` for receive_events().
    Handshake shake_hands();
    bool is_shaking_hands() const { return !is_open_ && !is_broken_; }

    // As recv(2) and send(2) without waiting: the number of bytes, 0 at the end, or -1 and errno: EAGAIN when there
    // is nothing to be had, or no room. `head` goes before `rest`, within one record if both fit. What was not sent
    // must be offered again, from anywhere, at least as much of it, before anything else is.
    ssize_t receive(char* to, size_t size);
    ssize_t send(std::string_view head, std::string_view rest);
    // What to poll for after EAGAIN. Usually POLLIN and POLLOUT; a key update has it the other way round.
    short receive_events() const { return receive_events_; }
    short send_events() const { return send_events_; }
    // Whether receive() has bytes that no poll can see.
    bool has_pending() const;
    // Tells the peer that no more will be sent (close_notify), once, where that can be done at once. So does the
    // destructor.
    void say_goodbye();

  private:
    ssize_t result_of(int result, short& events);
    bool is_usable() const;
    ssize_t send_one(std::string_view bytes);

    ssl_st* session_;  // owned; null only when there was no memory, which makes it broken
    bool is_open_ = false;
    bool is_broken_ = false;
    bool has_unsent_ = false;  // half a record is still to be written
    bool said_goodbye_ = false;
    short receive_events_;
    short send_events_;
};

}  // namespace torpor::http
