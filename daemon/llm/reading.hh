// Fields of a provider's JSON. What is missing, null or of another type reads as empty or 0: providers differ.
#pragma once

#include <simdjson.h>

#include <cstdint>
#include <string>
#include <string_view>

namespace torpor::llm {

using Json = simdjson::dom::element;

inline std::string_view text_at(Json object, std::string_view key) {
    std::string_view text;
    return object[key].get(text) ? std::string_view() : text;
}
inline uint64_t count_at(Json object, std::string_view key) {
    int64_t number = 0;
    return object[key].get(number) || number < 0 ? 0 : static_cast<uint64_t>(number);
}
// False if there is no such object.
inline bool object_at(Json object, std::string_view key, Json& out) {
    Json found;
    if (object[key].get(found) || !found.is_object()) return false;
    out = found;
    return true;
}
inline simdjson::dom::array list_at(Json object, std::string_view key) {
    static const simdjson::dom::array none = [] {
        static simdjson::dom::parser parser;
        return parser.parse("[]", 2).value_unsafe().get_array().value_unsafe();
    }();
    simdjson::dom::array list;
    return object[key].get(list) ? none : list;
}

// What an error's body says: {"error": {"message"}}, {"error": "..."}, {"message"}, {"detail"}; else empty.
inline std::string_view error_words(Json object) {
    Json error;
    if (object_at(object, "error", error)) return text_at(error, "message");
    for (const std::string_view key : {"error", "message", "detail"}) {
        if (const std::string_view text = text_at(object, key); !text.empty()) return text;
    }
    return {};
}

}  // namespace torpor::llm
