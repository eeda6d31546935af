// The limits of sessions' turns, each with its reason. Those of single tools are in daemon/tools/limits.hh.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>

namespace torpor::agent {

// One turn. Generous: they end what runs away, not what is long.
inline constexpr int turn_answers_max = 500;                          // of the model
inline constexpr int turn_calls_max = 1'000;                          // of tools
inline constexpr uint64_t turn_tokens_max = 50'000'000;               // in and out, cached ones included
inline constexpr double turn_cost_max = 50.0;                         // in the price table's currency, where prices are known
inline constexpr std::chrono::hours turn_time_max{12};                // of models and tools; waiting for people is free
inline constexpr int turn_resumes_max = 3;                            // without getting further: what it does may end the daemon

// All turns.
inline constexpr size_t turns_max = 32;                               // a thread each; one that waits for an answer has none
inline constexpr size_t calls_side_by_side_max = 8;                   // of one message, those that only read
inline constexpr size_t children_at_once_max = 8;                     // sessions that one turn has begun; each may hold a model and a thread
inline constexpr size_t child_result_bytes_max = 48 * 1024;           // as of any tool
inline constexpr std::chrono::seconds turn_end_wait_max{10};           // of one that was interrupted: a tool has less to end in
inline constexpr size_t title_characters_max = 60;                    // made of the first prompt
inline constexpr size_t prompts_waiting_max = 100;                    // of one session
inline constexpr size_t prompt_bytes_max = 1024 * 1024;               // 250,000 tokens: more than windows have
inline constexpr size_t result_schema_bytes_max = 64 * 1024;           // it is sent with each request, like a tool
inline constexpr int result_reminders_max = 2;                        // a model that forgot its result twice will not give it
inline constexpr size_t prompt_images_max = 20;                       // what providers take
inline constexpr size_t image_bytes_max = 5 * 1024 * 1024;            // the same

// What goes to the model.
inline constexpr uint64_t bytes_a_token_least = 2;                    // below this a count is asked for, above it nothing can be over
inline constexpr uint64_t image_tokens_most = 2'000;                  // of one image, at the size that providers scale it to
inline constexpr uint64_t answer_tokens_reserve = 1'024;              // of the window, for what it says; at most an eighth
inline constexpr size_t memory_file_bytes_max = 64 * 1024;            // of AGENTS.md and the like; the rest is left out, and said
inline constexpr size_t memory_bytes_max = 192 * 1024;                // all together
inline constexpr size_t settings_bytes_max = 256 * 1024;               // of a settings.toml: thousands of rules
inline constexpr size_t folder_levels_max = 64;                       // from the working directory up

// The client's environment.
inline constexpr size_t environment_variables_max = 64;               // the allow-list has fewer
inline constexpr size_t environment_value_bytes_max = 16 * 1024;      // a long PATH
inline constexpr size_t environments_max = 256;                       // sessions; the one set longest ago goes first

// Those who listen.
inline constexpr size_t open_block_bytes_max = 256 * 1024;            // of a block under way, kept for late comers; the stored event has all

// Reading a log.
inline constexpr size_t events_read_max = 256;                        // at once
inline constexpr size_t events_read_bytes_max = 1024 * 1024;          // at once: short reads, so that the log can be emptied

inline constexpr int schema_depth_max = 16;                           // of a tool's input

}  // namespace torpor::agent
