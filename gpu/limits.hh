// The limits of gpu/, each with its reason.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>

namespace torpor::gpu {

// Files by hand.
inline constexpr size_t model_file_bytes_max = 256 * 1024;
inline constexpr size_t models_max = 1000;
inline constexpr size_t aliases_max = 32;
inline constexpr size_t adapters_max = 64;         // of one model; its worker loads them all
inline constexpr double adapter_scale_max = 100;   // far beyond what answers sensibly
inline constexpr size_t arguments_max = 256;
inline constexpr size_t argument_bytes_max = 8 * 1024;

// Waiting for a worker.
inline constexpr size_t queue_max_default = 1024;                    // requests that wait for one model
inline constexpr size_t requests_per_model_default = 1024;           // under way with one worker; engines queue the rest
inline constexpr std::chrono::minutes wait_max{10};                  // the largest models load for minutes
inline constexpr std::chrono::minutes default_idle{10};              // then a worker is put to sleep

// Starting. An engine that says nothing for this long hangs.
inline constexpr std::chrono::minutes start_time_max{10};
inline constexpr std::chrono::milliseconds probe_gap{5};             // after a sign of life, at most this often
inline constexpr std::chrono::milliseconds probe_fallback{250};      // with no sign of life
inline constexpr std::chrono::seconds probe_time_max{5};             // one question
inline constexpr size_t probe_answer_bytes_max = 256 * 1024;           // llama-server's slots: some 3 kB each
inline constexpr std::chrono::seconds backoff_first{1};              // doubled for each failure in a row
inline constexpr std::chrono::seconds backoff_max{60};
inline constexpr std::chrono::seconds crash_is_young{10};            // a worker that dies sooner counts as failing

// Memory.
inline constexpr std::chrono::seconds room_patience{2};              // then busy workers finish and make room, too
inline constexpr uint64_t engine_bytes_guess = 256'000'000;          // a worker takes this and a fifth more than its weights
inline constexpr size_t weight_files_max = 10'000;                   // counted for that; a folder of weights has dozens
inline constexpr std::chrono::seconds memory_measure_gap{5};         // between two looks at one worker, at least
// The kernel is to say when tasks stood still for memory so long within a window. An unprivileged trigger's window must be
// a multiple of two seconds; a stall that people would call a hitch is enough.
inline constexpr std::chrono::milliseconds pressure_stall{150};
inline constexpr std::chrono::seconds pressure_window{2};
inline constexpr int64_t thaw_ms_guess = 50;                         // before one was seen, and for each
inline constexpr uint64_t thaw_bytes_per_ms_guess = 1'000'000;       //   megabyte one more

// Ending.
inline constexpr std::chrono::milliseconds dying_time_max{250};      // from the first reset to the reaping
inline constexpr std::chrono::seconds term_grace{3};                 // between SIGTERM and SIGKILL
inline constexpr std::chrono::milliseconds reap_check{5};            // a thaw waits for the pid of one that ended
inline constexpr std::chrono::seconds reap_time_max{3};              // some init processes look once a second
inline constexpr std::chrono::seconds orphan_end_time_max{1};        // at start; a thaw needs their pids
inline constexpr std::chrono::minutes drain_time_max{10};            // a suspend waits this long for requests

// CRIU. Its dump of a large engine is bound by the disk.
inline constexpr std::chrono::minutes dump_time_max{5};
inline constexpr std::chrono::minutes restore_time_max{2};
inline constexpr std::chrono::seconds check_time_max{10};
inline constexpr int dump_failures_max = 2;                          // then a model is not imaged until reload
inline constexpr size_t fingerprint_files_max = 10'000;              // a large engine has some hundred, its model some more
inline constexpr std::chrono::milliseconds quiet_before_image{20};   // no request for this long, then image

// The state of prompts. Giving it back costs milliseconds and some 10 us a token, reading a prompt anew 0.2 ms (a GPU)
// to 6 ms (two cores) a token: it pays from a few tokens on. But short ones are not worth their files.
inline constexpr size_t prompt_blocks_min = 2;                       // about 500 tokens
inline constexpr uint64_t prompt_tokens_min = 64;                     // more than on disk; fewer are no reason to write it all again
inline constexpr uint64_t prompt_disk_default = 4ull * 1024 * 1024 * 1024;
inline constexpr uint64_t prompt_disk_free_min = 1024ull * 1024 * 1024;  // of the disk, left to others
// The engine's own memory for states, beside its slots: a thirty-second part of the memory budget, rounded down to a
// power of two so that a small change of the budget does not change the command line, which would void all images.
inline constexpr uint64_t prompt_memory_share = 32;
inline constexpr uint64_t prompt_memory_min = 64ull * 1024 * 1024;
inline constexpr uint64_t prompt_memory_max = 2ull * 1024 * 1024 * 1024;
inline constexpr std::chrono::seconds prompt_save_time_max{5};       // all together, before a worker is ended
inline constexpr std::chrono::seconds prompt_step_time_max{30};      // one; the engine may be reading another's long prompt
inline constexpr size_t prompt_record_bytes_max = 4 * 1024 * 1024;   // a conversation of the largest body: 8192 blocks

// The disk. With no budget said, images leave a tenth of the file system free, but on a large one no more than this.
inline constexpr uint64_t disk_left_share = 10;
inline constexpr uint64_t disk_left_max = 20'000'000'000;
// An image that came out larger than the memory it was made of said, or a quota that no number shows: the next try
// waits for so much more room than there was.
inline constexpr uint64_t disk_more_min = 4 * 1024 * 1024;

// Connections to one worker that are kept open between requests.
inline constexpr size_t kept_connections_max = 64;

// A worker's output.
inline constexpr size_t worker_log_bytes_max = 4 * 1024 * 1024;
inline constexpr std::chrono::seconds worker_log_check{30};
inline constexpr size_t last_words_bytes_max = 4 * 1024;
inline constexpr size_t last_words_lines_max = 8;

}  // namespace torpor::gpu
