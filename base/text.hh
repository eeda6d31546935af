// Small things about text for people: durations, sizes, and the name that was probably meant.
#pragma once

#include "base/error.hh"

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace torpor {

// "500ms", "30s", "10m", "2h", "1d", "0"; a bare number is seconds. Negative or malformed: `invalid`.
Result<std::chrono::milliseconds> parse_duration(std::string_view text);

// "10m", "1h 30m", "850 ms"; at most two units.
std::string format_duration(std::chrono::milliseconds duration);

// "64MiB", "2GB", "512kB", "100"; a bare number is bytes. Powers of 1000, or of 1024 with an i. Malformed: `invalid`.
Result<uint64_t> parse_bytes(std::string_view text);

// "512 B", "98.4 MB" (powers of 1000, one decimal).
std::string format_bytes(uint64_t bytes);

// ASCII letters in lower case, all else as it is.
std::string to_lower(std::string_view text);

// The candidate nearest to `name` by edit distance, if near enough to have been meant; else empty.
std::string nearest(std::string_view name, const std::vector<std::string>& candidates);

// "; did you mean X?" or nothing.
std::string did_you_mean(std::string_view name, const std::vector<std::string>& candidates);

// As one word for a shell: in single quotes unless it is plain.
std::string shell_quoted(std::string_view text);

// True for 1 to 64 of [A-Za-z0-9._:-], not starting with a dot or a dash: safe as a file's name.
bool is_plain_name(std::string_view name);

// The last `lines_max` whole lines, without control characters but newline and tab.
std::string last_lines(std::string_view text, size_t lines_max);

}  // namespace torpor
