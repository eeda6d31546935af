// cpp-httplib's part of the server: it parses one request and writes its answer. It never listens.
#pragma once

#include "base/http/body.hh"
#include "base/http/stream.hh"
#include "base/limits.hh"

#include <httplib.h>

#include <chrono>
#include <functional>

namespace torpor::http {

using httplib::Request;
using httplib::Response;

struct Hooks {
    // Called with the head only, before any of the body is read. True: `response` is the answer.
    std::function<bool(const Request&, Response&)> admit;
    // Called for what admit let through, with the whole body in hand.
    std::function<void(const Request&, Body body, Response&)> respond;
    // Gives words to an error that HTTP itself found, by its status: no body yet.
    std::function<void(const Request&, Response&)> explain;
};

// Any number of threads, each with a stream of its own.
class Protocol final : public httplib::Server {
  public:
    Protocol(Hooks hooks, const Limits& limits);

    // Reads one request from the stream and answers it. `closes`: the connection cannot be used again.
    // False when it broke.
    bool serve_one(SocketStream& stream, bool& closes) {
        return process_request(stream, {}, 0, {}, 0, false, closes, nullptr);
    }

  private:
    void take_body(const Request& request, Response& response, const httplib::ContentReader& read);

    Hooks hooks_;
    const std::chrono::milliseconds body_time_;
    ByteBudget body_bytes_;
};

}  // namespace torpor::http
