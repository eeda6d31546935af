// One request after the other from a connection: our own checks of head and body, cpp-httplib's parsing of the
// head and writing of answers. It never listens.
#pragma once

#include "base/http/body.hh"
#include "base/http/body_reader.hh"
#include "base/http/head.hh"
#include "base/http/stream.hh"
#include "base/limits.hh"

#include <httplib.h>

#include <functional>

namespace torpor::http {

using httplib::Request;
using httplib::Response;

struct Hooks {
    // Called with the head only, before any of the body is read. True: `response` is the answer.
    std::function<bool(const Request&, Response&)> admit;
    // Called for what admit let through, with the whole body in hand.
    std::function<void(const Request&, Body body, Response&)> respond;
    // Writes an error that HTTP itself found; of the request only the path may be known. The status is set afterwards.
    std::function<void(const Request&, Response&, const Error&)> explain;
};

// Any number of threads, each with a stream of its own.
class Protocol final : public httplib::Server {
  public:
    // `take_slot`: room for a body that takes long, or null.
    Protocol(Hooks hooks, const Limits& limits, BodyReader::TakeSlot take_slot);

    struct Served {
        bool closes = true;          // the connection cannot be used again
        bool leaves_unread = false;  // the client may still be sending what nobody will read
    };
    // Answers the request whose whole head stands in the stream's buffer.
    Served serve_one(SocketStream& stream);
    // Answers what is not even a request.
    Served refuse(SocketStream& stream, const Refusal& refusal);

    const ByteBudget& body_bytes() const { return body_bytes_; }

  private:
    struct Serving;

    bool admit(const Request& request, Response& response);
    void answer(const Request& request, Response& response);
    void explain(const Request& request, Response& response, const Refusal& refusal);

    Hooks hooks_;
    const Limits& limits_;
    const BodyReader::TakeSlot take_slot_;
    ByteBudget body_bytes_;
};

}  // namespace torpor::http
