#include "daemon/tools/diff.hh"

#include "daemon/tools/cut.hh"
#include "daemon/tools/limits.hh"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

namespace torpor::tools {

namespace {

std::vector<std::string_view> split(std::string_view text) {
    std::vector<std::string_view> lines;
    while (!text.empty()) {
        const size_t end = text.find('\n');
        lines.push_back(text.substr(0, end));
        if (end == std::string_view::npos) break;
        text.remove_prefix(end + 1);
    }
    return lines;
}

}  // namespace

size_t lines_of(std::string_view text) {
    return static_cast<size_t>(std::ranges::count(text, '\n')) + (text.empty() || text.ends_with('\n') ? 0 : 1);
}

Diff diff_of(std::string_view before, std::string_view after, std::string_view name) {
    const auto old_lines = split(before), new_lines = split(after);
    const size_t shorter = std::min(old_lines.size(), new_lines.size());
    size_t same_begin = 0, same_end = 0;
    while (same_begin < shorter && old_lines[same_begin] == new_lines[same_begin]) ++same_begin;
    while (same_end < shorter - same_begin && old_lines[old_lines.size() - 1 - same_end] == new_lines[new_lines.size() - 1 - same_end]) ++same_end;

    Diff diff;
    diff.removed = old_lines.size() - same_begin - same_end;
    diff.added = new_lines.size() - same_begin - same_end;
    if (diff.removed == 0 && diff.added == 0) return diff;
    constexpr auto context = static_cast<size_t>(diff_context_lines);
    const size_t lead = std::min(same_begin, context), trail = std::min(same_end, context);
    const size_t first = same_begin - lead;
    const auto range = [](size_t begin, size_t count) { return fmt::format("{},{}", count == 0 ? begin : begin + 1, count); };
    std::string text = fmt::format("--- {0}\n+++ {0}\n@@ -{1} +{2} @@\n", name, range(first, lead + diff.removed + trail),
                                   range(first, lead + diff.added + trail));
    const auto put = [&](char sign, const std::vector<std::string_view>& lines, size_t begin, size_t count) {
        for (size_t i = begin; i < begin + count; ++i) text += fmt::format("{}{}\n", sign, lines[i]);
    };
    put(' ', old_lines, first, lead);
    put('-', old_lines, same_begin, diff.removed);
    put('+', new_lines, same_begin, diff.added);
    put(' ', old_lines, old_lines.size() - same_end, trail);
    diff.text = cut_middle(text, diff_bytes_max);
    return diff;
}

}  // namespace torpor::tools
