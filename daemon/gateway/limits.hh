// The limits of the gateway, each with its reason.
#pragma once

#include <chrono>
#include <cstddef>

namespace torpor::gateway {

inline constexpr size_t answer_head_bytes_max = 64 * 1024;
inline constexpr size_t answer_line_bytes_max = 4 * 1024;          // of the chunked framing
inline constexpr size_t whole_answer_bytes_max = 64 * 1024 * 1024; // many embeddings in one answer
inline constexpr size_t piece_bytes = 16 * 1024;                   // read from a worker at once
inline constexpr std::chrono::minutes first_byte_max{10};          // a long prompt on a slow machine
inline constexpr std::chrono::minutes stall_max{5};                // between two pieces of an answer
inline constexpr std::chrono::seconds send_stall_max{30};          // a worker that does not take the request
inline constexpr int tries_max = 3;                                // when a worker dies before it answers

}  // namespace torpor::gateway
