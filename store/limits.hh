// The limits of store/, each with its reason.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>

namespace torpor::store {

// Writing.
inline constexpr size_t jobs_waiting_max = 1024;              // as many as the gateway lets wait for a model
inline constexpr size_t jobs_in_group_max = 256;              // a commit stays short, so does the wait behind it
inline constexpr size_t jobs_before_truncate = 256;           // then an empty queue is used to empty the log

// SQLite.
inline constexpr std::chrono::milliseconds lock_wait_max{5000};  // another program (sqlite3, a backup) has it
inline constexpr int64_t cached_kib_max = 512;                   // a connection; what sessions read last stays, all else is small
inline constexpr int64_t log_bytes_kept = 4 * 1024 * 1024;       // of torpor.db-wal after a checkpoint
inline constexpr int64_t log_pages_before_checkpoint = 1000;     // SQLite's own default, said here to hold it
inline constexpr size_t statements_kept_max = 24;                // a connection, prepared; some 3 KiB each, more than are used often
inline constexpr int progress_steps = 10'000;                    // between two looks at the stop flag: < 1 ms

// Starting.
inline constexpr std::chrono::milliseconds lock_handover_max{2000};  // a killed daemon's memory is given back before its lock

// Reading.
inline constexpr size_t readers_max = 4;                         // reads are short; each costs up to its cache
inline constexpr std::chrono::milliseconds reader_wait_max{5000};  // longer means that a reader hangs

// Keys.
inline constexpr size_t keys_max = 1000;                         // each request compares with all: about 10 us
inline constexpr size_t key_random_bytes = 32;                   // 256 bits cannot be guessed
inline constexpr size_t key_prefix_bytes = 9;                    // shown in listings: "tp-" and 6 characters
inline constexpr std::chrono::milliseconds key_touch_gap{60'000};  // last use is known to the minute

// Sessions.
inline constexpr size_t searched_bytes_max = 64 * 1024;          // of one event's text; longer ones are found by their beginning
inline constexpr size_t search_words_max = 16;                   // of what is looked for
inline constexpr int excerpt_words = 12;                         // a line of a terminal

// Checking after an unclean exit: more lines than this say nothing new.
inline constexpr int check_problems_max = 10;

}  // namespace torpor::store
