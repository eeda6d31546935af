// The limits of tools, each with its reason.
#pragma once

#include <chrono>
#include <cstddef>

namespace torpor::tools {

inline constexpr size_t output_bytes_max = 48 * 1024;                 // what a model is shown of one call: about 12,000 tokens
inline constexpr size_t whole_bytes_max = 4 * 1024 * 1024;            // what is kept of one call for people

// read_file
inline constexpr size_t read_lines_max = 2'000;                       // at once, unless `limit` says less
inline constexpr size_t read_line_bytes_max = 2'000;                  // of one line: minified files
inline constexpr size_t read_bytes_max = output_bytes_max;
inline constexpr size_t read_skip_bytes_max = 1024UL * 1024 * 1024;   // to get to `offset`

// write_file
inline constexpr size_t write_bytes_max = 8 * 1024 * 1024;            // what a model can say at once is far less
inline constexpr size_t diff_bytes_max = 16 * 1024;                   // shown in the question and to those who watch
inline constexpr size_t diff_file_bytes_max = 1024 * 1024;            // of larger files only the sizes are told
inline constexpr int diff_context_lines = 3;

// Agent
inline constexpr size_t agent_prompt_bytes_max = 256 * 1024;           // what a model says at once is far less

// bash
inline constexpr std::chrono::minutes bash_time_default{2};           // of a command that says nothing about it
inline constexpr std::chrono::minutes bash_time_max{60};
inline constexpr size_t bash_command_bytes_max = 100 * 1024;          // the system takes 128 KiB for one argument
inline constexpr std::chrono::milliseconds bash_rest_time{100};       // for output that was written before the end
inline constexpr std::chrono::milliseconds bash_kill_time{2'000};     // until what was killed is gone; the disk may hold it up
inline constexpr unsigned child_umask = 022;                          // the daemon's own lets nobody read, which is not for sources

}  // namespace torpor::tools
