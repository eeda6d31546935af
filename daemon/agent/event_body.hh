// Fields of an event's body. What is missing or of another type reads as empty, 0 or false: events may come from an import.
#pragma once

#include <simdjson.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace torpor::agent {

class EventBody {
  public:
    explicit EventBody(std::string_view json) {
        if (parser_.parse(json.data(), json.size()).get(object_) == simdjson::SUCCESS) return;
        object_ = parser_.parse("{}", 2).value_unsafe().get_object().value_unsafe();
    }

    std::string text(std::string_view key) const {
        std::string_view found;
        return object_[key].get(found) ? std::string() : std::string(found);
    }
    int64_t number(std::string_view key) const {
        int64_t found = 0;
        return object_[key].get(found) ? 0 : found;
    }
    bool truth(std::string_view key) const {
        bool found = false;
        return !object_[key].get(found) && found;
    }
    // As JSON again; empty if it is not there.
    std::string json(std::string_view key) const {
        simdjson::dom::element found;
        return object_[key].get(found) ? std::string() : simdjson::minify(found);
    }
    std::vector<std::string> texts(std::string_view key) const {
        std::vector<std::string> all;
        simdjson::dom::array found;
        if (object_[key].get(found)) return all;
        for (const simdjson::dom::element element : found) {
            std::string_view one;
            if (!element.get(one)) all.emplace_back(one);
        }
        return all;
    }
    // False, and `out` as it was, if it is not there or of another type.
    template <class Value>
    bool get(std::string_view key, Value& out) const {
        return object_[key].get(out) == simdjson::SUCCESS;
    }
    const simdjson::dom::object& object() const { return object_; }
    bool has(std::string_view key) const { return object_[key].error() == simdjson::SUCCESS; }

  private:
    simdjson::dom::parser parser_;
    simdjson::dom::object object_;
};

}  // namespace torpor::agent
