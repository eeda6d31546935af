// The limits of base/, each with its reason. Every folder has such a file; nothing queues, buffers or
// waits without a name here.
#pragma once

#include <chrono>
#include <cstddef>

namespace torpor {

// Logs: a busy month fits, a small disk is not filled.
inline constexpr size_t daemon_log_bytes_max = 8 * 1024 * 1024;
inline constexpr size_t daemon_log_files_max = 3;

// HTTP server.
inline constexpr size_t request_head_bytes_max = 64 * 1024;         // what browsers and proxies take at most
inline constexpr size_t request_body_bytes_max = 64 * 1024 * 1024;  // a long context with images in base64
inline constexpr size_t request_bytes_in_flight_max = 256 * 1024 * 1024;  // all bodies together
inline constexpr size_t request_path_bytes_max = 512;               // no route is longer
inline constexpr size_t connections_max = 4096;                     // each costs a descriptor and about 1 kB
inline constexpr size_t http_threads_max = 1280;                    // one a request under way
inline constexpr size_t http_threads_reserve = 64;                  // of these, for short requests only
inline constexpr size_t http_threads_spare = 2;                     // stay when nothing goes on
inline constexpr size_t http_thread_stack_bytes = 256 * 1024;       // measured need: below 64 kB
inline constexpr std::chrono::seconds request_head_time_max{10};    // slow senders are let go
inline constexpr std::chrono::seconds request_body_stall_max{30};   // between two pieces of a body
inline constexpr std::chrono::seconds response_stall_max{60};       // a reader that takes nothing
inline constexpr std::chrono::seconds connection_idle_max{120};     // kept open between requests
inline constexpr std::chrono::seconds http_thread_idle_max{10};     // then a thread over the spare ones ends
inline constexpr std::chrono::milliseconds connection_linger{2};    // a thread waits this long for the next

// Server-sent events, as a client reads them.
inline constexpr size_t sse_event_bytes_max = 16 * 1024 * 1024;     // a whole response in its last event

}  // namespace torpor
