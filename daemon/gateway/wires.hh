// The request shapes that the gateway offers: their paths, and what an error looks like on each.
#pragma once

#include "base/error.hh"
#include "gpu/engine.hh"

#include <string>
#include <string_view>

namespace torpor::gateway {

struct WireRow {
    gpu::Wire wire;
    std::string_view name;  // in logs and metrics
    std::string_view path;
    bool usage_is_an_option;  // at a stream's end: `stream_options`
    bool takes_seed;           // a body may have a `seed`
    bool has_streams;          // a body with "stream": true asks for one
    // The JSON of an error in the vendor's shape.
    std::string (*error_body)(const Error& error);
    // The same as the last event of a stream that has begun.
    std::string (*error_event)(const Error& error);
    // What a stream that waits is told; clients skip it.
    std::string (*waiting_event)(std::string_view text);
};

// The row of this path; null if it is none of the five (or count_tokens).
const WireRow* find_wire(std::string_view path);

// The shape for an error on any other path below /v1.
std::string openai_error(const Error& error);
std::string anthropic_error(const Error& error);

}  // namespace torpor::gateway
