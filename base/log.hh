// The daemon's log: text on a terminal, JSON lines otherwise. Never write a secret or a prompt into it.
#pragma once

#include <fmt/format.h>

#include <chrono>
#include <filesystem>
#include <string>
#include <string_view>

namespace torpor::log {

enum class Level { debug, info, warning, error };

// Where lines go: standard error if `file` is empty, else that file, rotated at a named size.
// Call once, before other threads start. Without it lines go to standard error.
void open(const std::filesystem::path& file, Level least);

// "2026-01-31T12:00:00.123Z"
std::string time_text(std::chrono::system_clock::time_point time);

// From any thread.
void set_level(Level least);

void write(Level level, std::string_view message);

// Writes out what is still buffered.
void flush();

template <class... Args>
void debug(fmt::format_string<Args...> format, Args&&... args) {
    write(Level::debug, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void info(fmt::format_string<Args...> format, Args&&... args) {
    write(Level::info, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void warning(fmt::format_string<Args...> format, Args&&... args) {
    write(Level::warning, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void error(fmt::format_string<Args...> format, Args&&... args) {
    write(Level::error, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace torpor::log
