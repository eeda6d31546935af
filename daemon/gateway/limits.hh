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
inline constexpr size_t piece_bytes = 64 * 1024;                     // read from a worker at once; held for a slow client

// How long it may take.
inline constexpr std::chrono::minutes first_byte_max{10};            // a long prompt on a slow machine
inline constexpr std::chrono::minutes stall_max{5};                  // between two pieces of an answer
inline constexpr std::chrono::hours stream_time_max{4};              // endless tokens end here
inline constexpr std::chrono::seconds send_stall_max{30};            // a worker that does not take the request
inline constexpr std::chrono::seconds client_stall_max{60};          // a reader that takes nothing
inline constexpr std::chrono::seconds tell_gap{5};                   // a waiting stream hears what goes on
inline constexpr std::chrono::milliseconds relay_tick{250};          // how late a deadline may be noticed
inline constexpr std::chrono::milliseconds connect_again{2};         // a worker whose backlog is full

inline constexpr int tries_max = 3;                                  // when a worker dies before it answers
inline constexpr int events_at_once = 256;                           // taken from epoll in one call

}  // namespace torpor::gateway
