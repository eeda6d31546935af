// Reads one request's body from its connection, within its limits.
#pragma once

#include "base/http/body.hh"
#include "base/http/head.hh"
#include "base/http/stream.hh"

#include <chrono>
#include <functional>
#include <memory>
#include <optional>

namespace torpor::http {

class LongSlot;

class BodyReader {
  public:
    using TakeSlot = std::function<std::shared_ptr<LongSlot>()>;

    // `take_slot`: called once if the body takes long; without a slot it is refused. All outlive this.
    BodyReader(SocketStream& stream, const Limits& limits, const TakeSlot& take_slot);

    // What is wrong, or nothing, and `body` has all of it. Then what is left in the stream is the next request;
    // otherwise the connection is of no more use. Blocks for body_time at most.
    std::optional<Refusal> read(const Framing& framing, Body& body);

  private:
    using Clock = std::chrono::steady_clock;

    bool take(size_t count, Body& body);
    bool take_chunks(Body& body);
    bool take_line(std::string& line);
    ssize_t read_some(char* to, size_t size);
    bool refuse(int status, Kind kind, std::string message, std::string_view limit = {});

    SocketStream& stream_;
    const Limits& limits_;
    const TakeSlot& take_slot_;
    std::shared_ptr<LongSlot> slot_;
    const Clock::time_point began_ = Clock::now();
    std::optional<Refusal> refusal_;
};

}  // namespace torpor::http
