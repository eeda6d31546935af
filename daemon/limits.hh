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

}  // namespace torpor
