// The limits of the daemon's doors, each with its reason. Those of /v1 are in daemon/gateway/limits.hh.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>

namespace torpor {

// Wrong keys, counted for each address that they come from.
inline constexpr uint64_t failed_keys_free = 5;                      // a person who mistypes is told so at once
inline constexpr std::chrono::seconds failed_key_pause_first{1};     // after that many; doubled by each further one
inline constexpr std::chrono::seconds failed_key_pause_max{60};      // a client that was given a new key is not lost
inline constexpr std::chrono::minutes failed_key_memory{10};         // quiet for so long: as if nothing had been
inline constexpr size_t failed_key_addresses_max = 1024;             // about 100 kB; the one longest quiet goes first
inline constexpr int failed_key_lines_per_minute_max = 20;           // of the log, all addresses together

// Sessions, as lists and files.
inline constexpr int64_t sessions_listed_default = 50;
inline constexpr int64_t sessions_listed_max = 1000;                 // some 400 kB
inline constexpr size_t title_bytes_max = 200;                       // a line
inline constexpr size_t transfer_events_max = 256;                   // read at once
inline constexpr size_t transfer_bytes_max = 1024 * 1024;            // read at once

// Those who follow a session.
inline constexpr size_t follower_queue_bytes_max = 32 * 1024;        // told and not taken; then it begins again with what is stored
inline constexpr size_t follower_read_events_max = 256;              // read at once from the store
inline constexpr size_t follower_read_bytes_max = 128 * 1024;        // the same
inline constexpr std::chrono::seconds follower_beat{15};             // proxies cut what is silent for longer than 30 to 60 s
inline constexpr std::chrono::seconds follower_stall_max{120};       // a suspended terminal comes back; what it missed is stored

}  // namespace torpor
