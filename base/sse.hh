// Reading server-sent events, as the WHATWG HTML standard defines the stream (text/event-stream).
#pragma once

#include "base/error.hh"
#include "base/limits.hh"

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>

namespace torpor {

// Takes a stream's bytes in pieces of any size and gives back its events. Any bytes are valid input: what
// is no known field is skipped, an event that the stream's end cuts off is never given. One thread.
class SseParser {
  public:
    // `event` is the event's name, "message" if it had none; both views end with the call.
    using OnEvent = std::function<void(std::string_view event, std::string_view data)>;

    // A line or an event larger than this is refused; the parser holds no more than twice as much.
    explicit SseParser(size_t event_bytes_max = sse_event_bytes_max) : event_bytes_max_(event_bytes_max) {}

    // Calls `on_event` for each event that is complete. Fails with `too_large`, then and on every later call.
    Result<void> feed(std::string_view bytes, const OnEvent& on_event);

    // What a client that connects again sends as Last-Event-ID; empty if there was no id. It counts as
    // the standard says: from the moment that its event was complete.
    const std::string& last_event_id() const { return last_event_id_; }

  private:
    void take_line(std::string_view line, const OnEvent& on_event);
    void take_field(std::string_view name, std::string_view value);
    void dispatch(const OnEvent& on_event);
    bool is_too_large(size_t line_bytes) const;
    Failure refuse();

    const size_t event_bytes_max_;
    std::string line_;  // the beginning of a line whose end has not come yet
    std::string event_;
    std::string data_;  // a newline after each of its lines
    std::string id_;
    std::string last_event_id_;
    bool is_first_line_ = true;
    bool skip_newline_ = false;  // the last byte was a carriage return
    bool refused_ = false;
};

}  // namespace torpor
