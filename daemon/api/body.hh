// Reading a small JSON object from a request: closed set of keys, kind words for what is wrong.
#pragma once

#include "base/error.hh"

#include <simdjson.h>

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace torpor::api {

class Body {
  public:
    // Refuses bad JSON, anything but an object, duplicate keys and keys that are not in `known`.
    static Result<Body> parse(const std::string& text, const std::vector<std::string>& known);

    bool has(std::string_view key) const { return object_[key].error() == simdjson::SUCCESS; }
    // Each leaves `out` alone if the key is absent, and keeps the first wrong type as error().
    void text(std::string_view key, std::string& out);
    void truth(std::string_view key, bool& out);
    void count(std::string_view key, uint32_t& out);
    void texts(std::string_view key, std::vector<std::string>& out);
    void number(std::string_view key, double& out);
    // Calls `take` for each member of the object at `key`, itself an object with keys of `known` only.
    void objects(std::string_view key, const std::vector<std::string>& known, const std::function<void(const std::string& name, Body& keys)>& take);
    void pairs(std::string_view key, std::map<std::string, std::string>& out);

    const std::optional<Error>& error() const { return error_; }

  private:
    Result<void> check_keys(const std::vector<std::string>& known) const;
    void complain(std::string_view key, std::string_view wanted);

    std::shared_ptr<simdjson::dom::parser> parser_ = std::make_shared<simdjson::dom::parser>();
    simdjson::dom::object object_;
    std::optional<Error> error_;
};

}  // namespace torpor::api
