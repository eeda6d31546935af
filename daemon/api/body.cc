#include "daemon/api/body.hh"

#include "base/text.hh"

#include <algorithm>
#include <set>

namespace torpor::api {

namespace dom = simdjson::dom;

Result<Body> Body::parse(const std::string& text, const std::vector<std::string>& known) {
    Body body;
    dom::element root;
    if (const auto code = body.parser_->parse(text).get(root)) {
        return Failure(Error{Kind::invalid, "the body is not well-formed JSON", simdjson::error_message(code)});
    }
    if (root.get(body.object_)) return fail(Kind::invalid, "the body must be a JSON object");
    if (auto checked = body.check_keys(known); !checked) return Failure(checked.error());
    return body;
}

Result<void> Body::check_keys(const std::vector<std::string>& known) const {
    std::set<std::string_view> seen;
    for (const auto& [key, value] : object_) {
        if (std::ranges::find(known, std::string(key)) == known.end()) {
            return fail(Kind::invalid, "'{}' is not a known key{}", key.substr(0, 64), did_you_mean(key, known));
        }
        if (!seen.insert(key).second) return fail(Kind::invalid, "'{}' is given twice", key);
    }
    return {};
}

void Body::complain(std::string_view key, std::string_view wanted) {
    if (!error_) error_ = Error{Kind::invalid, fmt::format("'{}' must be {}", key, wanted), {}};
}

void Body::text(std::string_view key, std::string& out) {
    dom::element value;
    if (object_[key].get(value)) return;
    std::string_view found;
    if (value.get(found)) return complain(key, "a string");
    out = found;
}

void Body::truth(std::string_view key, bool& out) {
    dom::element value;
    if (object_[key].get(value)) return;
    if (value.get(out)) complain(key, "true or false");
}

void Body::count(std::string_view key, uint32_t& out) {
    dom::element value;
    if (object_[key].get(value)) return;
    constexpr uint64_t count_max = 1'000'000;
    uint64_t number = 0;
    if (value.get(number) || number > count_max) return complain(key, "a whole number from 0 to 1000000");
    out = static_cast<uint32_t>(number);
}

void Body::number(std::string_view key, double& out) {
    dom::element value;
    if (object_[key].get(value)) return;
    if (value.get(out)) complain(key, "a number");
}

void Body::objects(std::string_view key, const std::vector<std::string>& known,
                   const std::function<void(const std::string& name, Body& keys)>& take) {
    dom::element value;
    if (object_[key].get(value)) return;
    dom::object all;
    if (value.get(all)) return complain(key, "an object of objects");
    for (const auto& [name, element] : all) {
        Body one;
        one.parser_ = parser_;
        if (element.get(one.object_)) return complain(key, "an object of objects");
        const auto checked = one.check_keys(known);
        if (checked) take(std::string(name), one);
        if (!checked && !one.error_) one.error_ = checked.error();
        if (one.error_ && !error_) error_ = one.error_;
    }
}

void Body::texts(std::string_view key, std::vector<std::string>& out) {
    dom::element value;
    if (object_[key].get(value)) return;
    dom::array array;
    if (value.get(array)) return complain(key, "a list of strings");
    for (const dom::element element : array) {
        std::string_view text;
        if (element.get(text)) return complain(key, "a list of strings");
        out.emplace_back(text);
    }
}

void Body::pairs(std::string_view key, std::map<std::string, std::string>& out) {
    dom::element value;
    if (object_[key].get(value)) return;
    dom::object object;
    if (value.get(object)) return complain(key, "an object of strings");
    for (const auto& [name, element] : object) {
        std::string_view text;
        if (element.get(text)) return complain(key, "an object of strings");
        out[std::string(name)] = text;
    }
}

}  // namespace torpor::api
