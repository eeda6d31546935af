#include "base/text.hh"

#include <algorithm>
#include <array>
#include <charconv>
#include <numeric>

namespace torpor {

namespace {

struct Unit {
    std::string_view name;
    int64_t ms;
};
constexpr std::array<Unit, 5> units{{{"d", 86'400'000}, {"h", 3'600'000}, {"m", 60'000}, {"s", 1'000}, {"ms", 1}}};

constexpr int64_t duration_ms_max = 366LL * 86'400'000;

}  // namespace

Result<std::chrono::milliseconds> parse_duration(std::string_view text) {
    int64_t number = 0;
    const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), number);
    const std::string_view unit(end, static_cast<size_t>(text.data() + text.size() - end));
    if (code == std::errc{} && number >= 0) {
        int64_t scale = unit.empty() ? 1'000 : 0;
        for (const Unit& known : units) {
            if (known.name == unit) scale = known.ms;
        }
        if (scale > 0 && number <= duration_ms_max / scale) return std::chrono::milliseconds(number * scale);
    }
    return fail(Kind::invalid, "'{}' is not a duration; write for example 500ms, 30s, 10m, 2h or 0", text);
}

Result<uint64_t> parse_bytes(std::string_view text) {
    constexpr std::array<std::pair<std::string_view, uint64_t>, 10> scales{{{"", 1}, {"B", 1}, {"kB", 1'000}, {"MB", 1'000'000},
        {"GB", 1'000'000'000}, {"TB", 1'000'000'000'000}, {"KiB", 1ULL << 10}, {"MiB", 1ULL << 20}, {"GiB", 1ULL << 30}, {"TiB", 1ULL << 40}}};
    uint64_t number = 0;
    const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), number);
    std::string_view unit(end, static_cast<size_t>(text.data() + text.size() - end));
    if (unit.starts_with(' ')) unit.remove_prefix(1);
    for (const auto& [name, scale] : scales) {
        if (code == std::errc{} && unit == name && number <= UINT64_MAX / scale) return number * scale;
    }
    return fail(Kind::invalid, "'{}' is not a size; write for example 64MiB, 2GB or 4096", text);
}

std::string format_duration(std::chrono::milliseconds duration) {
    int64_t left = duration.count();
    if (left < 1'000) return fmt::format("{} ms", left);
    std::string text;
    int shown = 0;
    for (const Unit& unit : units) {
        const int64_t count = left / unit.ms;
        if (count == 0 || unit.ms == 1) continue;
        left -= count * unit.ms;
        text += fmt::format("{}{}{}", text.empty() ? "" : " ", count, unit.name);
        if (++shown == 2) break;
    }
    return text;
}

std::string format_bytes(uint64_t bytes) {
    constexpr std::array<std::string_view, 5> names{"B", "kB", "MB", "GB", "TB"};
    double value = static_cast<double>(bytes);
    size_t index = 0;
    while (value >= 999.95 && index + 1 < names.size()) {
        value /= 1000;
        ++index;
    }
    return index == 0 ? fmt::format("{} B", bytes) : fmt::format("{:.1f} {}", value, names[index]);
}

// Edit distance with swaps of neighbours (optimal string alignment), one row at a time.
static size_t distance(std::string_view a, std::string_view b) {
    std::vector<size_t> before, above(b.size() + 1), row(b.size() + 1);
    std::iota(above.begin(), above.end(), size_t{0});
    for (size_t i = 1; i <= a.size(); ++i) {
        row[0] = i;
        for (size_t j = 1; j <= b.size(); ++j) {
            const size_t change = above[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
            row[j] = std::min({above[j] + 1, row[j - 1] + 1, change});
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
                row[j] = std::min(row[j], before[j - 2] + 1);
            }
        }
        before = above;
        above = row;
    }
    return above[b.size()];
}

std::string to_lower(std::string_view text) {
    std::string lower(text);
    for (char& c : lower) {
        if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
    }
    return lower;
}

std::string nearest(std::string_view name, const std::vector<std::string>& candidates) {
    constexpr size_t name_bytes_max = 128;
    if (name.empty() || name.size() > name_bytes_max) return {};
    std::string best;
    size_t best_distance = std::max<size_t>(1, name.size() / 3) + 1;
    for (const std::string& candidate : candidates) {
        if (candidate.size() > name_bytes_max) continue;
        const bool begins = name.size() >= 3 && candidate.starts_with(name);
        const size_t found = begins ? 1 : distance(name, candidate);
        if (found < best_distance) {
            best_distance = found;
            best = candidate;
        }
    }
    return best;
}

std::string did_you_mean(std::string_view name, const std::vector<std::string>& candidates) {
    const std::string found = nearest(name, candidates);
    return found.empty() ? std::string() : fmt::format("; did you mean {}?", found);
}

std::string shell_quoted(std::string_view text) {
    const bool is_plain = !text.empty() && std::ranges::all_of(text, [](unsigned char c) {
        return std::isalnum(c) != 0 || std::string_view("+,-./:=@_%").find(static_cast<char>(c)) != std::string_view::npos;
    });
    if (is_plain) return std::string(text);
    std::string quoted = "'";
    for (const char c : text) c == '\'' ? quoted += "'\\''" : quoted += c;
    return quoted + "'";
}

bool is_plain_name(std::string_view name) {
    if (name.empty() || name.size() > 64 || name[0] == '.' || name[0] == '-') return false;
    return std::ranges::all_of(name, [](unsigned char c) {
        return std::isalnum(c) != 0 || c == '.' || c == '_' || c == ':' || c == '-';
    });
}

std::string last_lines(std::string_view text, size_t lines_max) {
    while (!text.empty() && text.back() == '\n') text.remove_suffix(1);
    size_t start = text.size();
    for (size_t lines = 0; lines < lines_max && start != std::string_view::npos && start > 0; ++lines) {
        start = text.rfind('\n', start - 1);
    }
    if (start != std::string_view::npos && start > 0) text.remove_prefix(start + 1);
    std::string clean;
    for (const char c : text) {
        if (c == '\n' || c == '\t' || static_cast<unsigned char>(c) >= 0x20) clean += c;
    }
    return clean;
}

}  // namespace torpor
