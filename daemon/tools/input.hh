// Fields of a tool's input, which was checked against its schema before.
#pragma once

#include <simdjson.h>

#include <cstdint>
#include <string>
#include <string_view>

namespace torpor::tools {

inline std::string text_of(const simdjson::dom::object& input, std::string_view key) {
    std::string_view text;
    return input[key].get(text) ? std::string() : std::string(text);
}

inline uint64_t number_of(const simdjson::dom::object& input, std::string_view key, uint64_t fallback) {
    uint64_t number = 0;
    return input[key].get(number) ? fallback : number;
}

}  // namespace torpor::tools
