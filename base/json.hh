// Writing JSON. Reading is simdjson's: DOM for what is stored or trusted, on-demand for streams.
#pragma once

#include <concepts>
#include <cstdint>
#include <string>
#include <string_view>

namespace torpor {

// Appends `text` as a JSON string, quoted and escaped. Bytes that are not UTF-8 become U+FFFD.
void append_json_string(std::string& out, std::string_view text);

// Builds one JSON text, commas and colons placed by itself. The caller keeps the nesting right.
class JsonWriter {
  public:
    JsonWriter& begin_object() { return open('{'); }
    JsonWriter& end_object() { return close('}'); }
    JsonWriter& begin_array() { return open('['); }
    JsonWriter& end_array() { return close(']'); }
    JsonWriter& key(std::string_view name);
    JsonWriter& value(std::string_view text);
    JsonWriter& value(const char* text) { return value(std::string_view(text)); }
    JsonWriter& value(const std::string& text) { return value(std::string_view(text)); }
    JsonWriter& value(bool truth);
    JsonWriter& value(double number);
    template <std::integral Integer>
    JsonWriter& value(Integer number) {
        return raw(std::to_string(number));
    }
    JsonWriter& null() { return raw("null"); }
    // JSON text that is known to be right.
    JsonWriter& raw(std::string_view json);

    template <class Value>
    JsonWriter& member(std::string_view name, const Value& content) {
        key(name);
        return value(content);
    }

    const std::string& text() const { return text_; }
    std::string take() { return std::move(text_); }

  private:
    void comma();
    JsonWriter& open(char bracket);
    JsonWriter& close(char bracket);

    std::string text_;
    bool needs_comma_ = false;
};

}  // namespace torpor
