// The limits of base/, each with its reason. Every folder has such a file; nothing queues, buffers or
// waits without a name here.
#pragma once

#include <chrono>
#include <cstddef>

namespace torpor {

// Logs: a busy month fits, a small disk is not filled.
inline constexpr size_t daemon_log_bytes_max = 8 * 1024 * 1024;
inline constexpr size_t daemon_log_files_max = 3;

// Schemas: what people write is flat; these stop what goes in circles.
inline constexpr int json_schema_depth_max = 64;
inline constexpr size_t json_schema_steps_max = 1'000'000;

// HTTP server: what config.toml can change, each with its default.
namespace http {
struct Limits {
    size_t connections = 4096;                           // each costs a descriptor and about 3 kB (15 kB with TLS)
    size_t body_bytes = 64 * 1024 * 1024;                // a long context with images in base64
    size_t bodies_in_flight_bytes = 256 * 1024 * 1024;   // all bodies together
    std::chrono::milliseconds head_time{10'000};         // slow senders are let go
    std::chrono::milliseconds body_stall{30'000};        // between two pieces of a body
    std::chrono::milliseconds body_time{300'000};        // a whole body: 64 MiB at 2 Mbit/s
    std::chrono::milliseconds client_stall{60'000};      // a reader that takes nothing
    std::chrono::milliseconds idle_time{120'000};        // kept open between requests
};
}  // namespace http

// And what nobody needs to change.
inline constexpr size_t request_head_bytes_max = 64 * 1024;         // what browsers and proxies take at most
inline constexpr size_t request_target_bytes_max = 2 * 1024;        // path and query; cpp-httplib has the same
inline constexpr size_t request_line_bytes_max = 8 * 1024 - 2;      // of the head, or between chunks; the same
inline constexpr size_t request_header_lines_max = 100;             // the same
inline constexpr size_t request_path_bytes_max = 512;               // no route is longer
inline constexpr size_t http_threads_max = 256;                     // one a request that is read or answered at once
inline constexpr size_t http_threads_reserve = 64;                  // of these, for short requests only
inline constexpr size_t http_threads_spare = 2;                     // stay when nothing goes on
inline constexpr size_t http_thread_stack_bytes = 256 * 1024;       // measured need: below 64 kB
inline constexpr std::chrono::seconds http_thread_idle_max{10};     // then a thread over the spare ones ends
inline constexpr std::chrono::milliseconds body_slow{1'000};         // a body that takes longer counts as a long request
inline constexpr std::chrono::milliseconds linger_time{5'000};       // a refused sender may read why before we close
inline constexpr std::chrono::milliseconds connection_linger{2};    // a thread waits this long for the next

// Server-sent events, as a client reads them.
inline constexpr size_t sse_event_bytes_max = 16 * 1024 * 1024;     // a whole response in its last event

}  // namespace torpor
