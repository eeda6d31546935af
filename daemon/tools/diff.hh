// What changes between two texts, for people.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace torpor::tools {

struct Diff {
    size_t added = 0, removed = 0;  // lines
    std::string text;               // in the unified format, one hunk from the first change to the last; cut where it is long
};

Diff diff_of(std::string_view before, std::string_view after, std::string_view name);

size_t lines_of(std::string_view text);

}  // namespace torpor::tools
