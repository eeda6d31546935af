// The limits of the gateway, each with its reason.
#pragma once

#include <chrono>
#include <cstddef>

namespace torpor::gateway {

// What an engine may send.
inline constexpr size_t answer_head_bytes_max = 64 * 1024;
inline constexpr size_t answer_line_bytes_max = 4 * 1024;            // of the chunked framing
inline constexpr size_t whole_answer_bytes_max = 64 * 1024 * 1024;   // many embeddings in one answer
inline constexpr size_t answer_bytes_in_flight_max = 256 * 1024 * 1024;  // all whole answers together
inline constexpr size_t event_bytes_max = 1024 * 1024;               // a longer event is passed on unread
inline constexpr size_t piece_bytes = 16 * 1024;                     // read from a worker at once; held for a slow client, twice

// What a client may ask.
inline constexpr size_t request_depth_max = 512;                     // of a body's JSON: engines' parsers recurse
inline constexpr size_t conversation_bytes_max = 8 * 1024 * 1024;    // read for its prompt's state: 2 million tokens, some ms

// What config.toml can change, each with its default.
struct Limits {
    size_t requests_per_key = 256;                              // under way at once; a key can be given its own number
    std::chrono::milliseconds wait{600'000};                    // for a worker: the largest models load for minutes
    std::chrono::milliseconds send_stall{30'000};               // a worker that takes nothing of the request
    std::chrono::milliseconds first_byte{600'000};              // a long prompt on a slow machine
    std::chrono::milliseconds stall{300'000};                   // between two pieces of an answer
    std::chrono::milliseconds stream_time{4 * 3'600'000};       // endless tokens end here
};

// How long the rest may take.
inline constexpr std::chrono::seconds tell_gap{5};                   // a waiting stream hears what goes on
inline constexpr std::chrono::milliseconds relay_tick{250};          // how late a deadline may be noticed
inline constexpr std::chrono::milliseconds connect_again{2};         // a worker whose backlog is full

inline constexpr size_t request_log_bytes_max = 8 * 1024 * 1024;     // a busy day; two files are kept
inline constexpr size_t request_log_held_bytes_max = 64 * 1024;      // lines not written yet

inline constexpr int tries_max = 3;                                  // when a worker dies before it answers
inline constexpr int events_at_once = 256;                           // taken from epoll in one call

}  // namespace torpor::gateway
