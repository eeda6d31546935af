// Reads the usage out of an event stream that passes by.
//
// Usage stands in the last chunk of the OpenAI wires (`usage`), in message_start and message_delta of the
// Anthropic one (`message.usage`, `usage`), and in response.completed of Responses (`response.usage`).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace torpor::gateway {

struct Usage {
    uint64_t input_tokens = 0;
    uint64_t output_tokens = 0;
    uint64_t cached_tokens = 0;  // of the prompt, beside input_tokens: only Anthropic's wire counts them apart

    // Prompt and answer together, 0 if nothing is known.
    uint64_t all_tokens() const { return output_tokens == 0 ? 0 : input_tokens + cached_tokens + output_tokens; }
};

// The usage in one JSON text of any wire, added to what `usage` holds: a later number replaces an earlier one.
// False if it has none. `is_only_usage`: a chunk of the OpenAI wires that has no choices.
bool read_usage(std::string_view json, Usage& usage, bool* is_only_usage = nullptr);

// One stream. Passes whole events on; one longer than event_bytes_max goes by unread.
class StreamTap {
  public:
    // `drops_usage`: the chunk that has usage and no choices was our wish, not the client's.
    explicit StreamTap(bool drops_usage) : drops_usage_(drops_usage) {}

    void feed(std::string_view bytes, std::string& out);
    // What is left when the stream has ended.
    void finish(std::string& out);
    // The stream was cut: its unfinished event is dropped, or ended where part of it is gone already, so that an
    // event of ours can follow.
    void cut(std::string& out);

    const Usage& usage() const { return usage_; }

  private:
    void take_event(std::string_view event, std::string& out);

    const bool drops_usage_;
    bool is_oversized_ = false;  // within an event that passes unread
    std::string pending_;        // the beginning of an event
    Usage usage_;
};

}  // namespace torpor::gateway
