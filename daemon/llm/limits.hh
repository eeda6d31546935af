// The limits of asking providers, each with its reason.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>

namespace torpor::llm {

// One answer.
inline constexpr size_t stream_event_bytes_max = 16 * 1024 * 1024;        // an answer's whole text comes again in the last event of some
inline constexpr size_t answer_bytes_max = 32 * 1024 * 1024;              // all blocks: no model says so much
inline constexpr size_t answer_blocks_max = 4'096;
inline constexpr size_t error_body_bytes_max = 64 * 1024;                 // read of an answer that is an error
inline constexpr size_t error_words_max = 600;                            // shown of it
inline constexpr uint64_t output_tokens_default = 16'384;                 // where the wire demands a number and none is known

// Time.
inline constexpr std::chrono::seconds connect_time_max{15};               // a name, a connection, TLS
inline constexpr std::chrono::minutes first_byte_time_max{15};            // a cold start and a long prompt of a local model
inline constexpr std::chrono::minutes stall_time_max{5};                  // between two pieces: some think silently

// Tries before the first byte of an answer.
inline constexpr int retries_max = 5;
inline constexpr std::chrono::milliseconds retry_wait_first{500};         // doubled by each further one, and a random part of it
inline constexpr std::chrono::milliseconds retry_wait_max{30'000};
inline constexpr std::chrono::milliseconds retry_after_max{120'000};      // a provider that wants more is given up

// Connections kept for the next request; one for each thread that asked lately.
inline constexpr size_t idle_connections_max = 8;

// Configuration.
inline constexpr size_t key_bytes_max = 16 * 1024;
inline constexpr size_t template_bytes_max = 1024 * 1024;                 // of a model's chat template
inline constexpr size_t gguf_head_bytes_max = 64 * 1024 * 1024;           // vocabularies stand before it

}  // namespace torpor::llm
