#include "daemon/gateway/request_scan.hh"

#include "base/json.hh"
#include "base/text.hh"
#include "daemon/gateway/limits.hh"

#include <simdjson.h>

#include <algorithm>
#include <utility>

namespace torpor::gateway {

namespace {

namespace ondemand = simdjson::ondemand;

constexpr size_t model_bytes_max = 256;

Failure malformed(simdjson::error_code code) {
    return Failure(Error{Kind::invalid, "the body is not well-formed JSON", simdjson::error_message(code)});
}

Result<void> take_model(ondemand::value value, const std::string& body, RequestScan& scan) {
    if (scan.model_end != 0) return fail(Kind::invalid, "'model' is given twice");
    ondemand::json_type type{};
    if (const auto code = value.type().get(type)) return malformed(code);
    if (type != ondemand::json_type::string) return fail(Kind::invalid, "'model' must be a string");
    std::string_view token = value.raw_json_token();  // reaches to the next token
    while (!token.empty() && token.back() != '"') token.remove_suffix(1);
    std::string_view name;
    if (const auto code = value.get_string().get(name)) return malformed(code);
    if (name.empty() || name.size() > model_bytes_max) {
        return fail(Kind::invalid, "'model' must have 1 to {} bytes", model_bytes_max);
    }
    scan.model = name;
    scan.model_begin = static_cast<size_t>(token.data() - body.data());
    scan.model_end = scan.model_begin + token.size();
    return {};
}

Result<void> take_stream(ondemand::value value, RequestScan& scan) {
    if (std::exchange(scan.has_stream, true)) return fail(Kind::invalid, "'stream' is given twice");
    bool is_null = false;
    if (const auto code = value.is_null().get(is_null)) return malformed(code);
    if (is_null) return {};
    if (value.get_bool().get(scan.wants_stream)) return fail(Kind::invalid, "'stream' must be true or false");
    return {};
}

// What it is, is the engine's to judge; a repeated one too.
Result<void> take_seed(ondemand::value value, const std::string& body, RequestScan& scan) {
    const std::string_view token = value.raw_json_token();
    bool is_null = false;
    if (const auto code = value.is_null().get(is_null)) return malformed(code);
    if (is_null) {
        scan.seed_null = static_cast<size_t>(token.data() - body.data());
    } else {
        scan.has_seed = true;
    }
    return {};
}

Result<void> take_keep_alive(ondemand::value value, RequestScan& scan) {
    if (scan.keep_alive) return fail(Kind::invalid, "'keep_alive' is given twice");
    ondemand::json_type type{};
    if (const auto code = value.type().get(type)) return malformed(code);
    if (type == ondemand::json_type::null) return {};
    constexpr double seconds_max = 366.0 * 86'400;
    double seconds = 0;
    std::string_view text;
    if (type == ondemand::json_type::number && !value.get_double().get(seconds) && seconds <= seconds_max) {
        scan.keep_alive = std::chrono::milliseconds(seconds < 0 ? -1 : static_cast<int64_t>(seconds * 1000));
        return {};
    }
    if (type == ondemand::json_type::string && !value.get_string().get(text)) {
        if (text.starts_with('-') && parse_duration(text.substr(1))) {
            scan.keep_alive = std::chrono::milliseconds(-1);
            return {};
        }
        if (const auto duration = parse_duration(text)) {
            scan.keep_alive = *duration;
            return {};
        }
    }
    return fail(Kind::invalid, "'keep_alive' must be a number of seconds or a duration like \"10m\"; 0: sleep at once, -1: never");
}

// Whether arrays and objects nest deeper than request_depth_max. Nothing that is asked in earnest has so many brackets
// in all, so most bodies are only counted through.
bool is_deep(std::string_view body) {
    if (static_cast<size_t>(std::ranges::count_if(body, [](char c) { return c == '[' || c == '{'; })) <= request_depth_max) return false;
    size_t depth = 0;
    bool in_string = false;
    for (size_t i = 0; i < body.size(); ++i) {
        const char c = body[i];
        if (in_string) {
            if (c == '\\') ++i;
            if (c == '"') in_string = false;
        } else if (c == '"') {
            in_string = true;
        } else if (c == '[' || c == '{') {
            if (++depth > request_depth_max) return true;
        } else if ((c == ']' || c == '}') && depth > 0) {
            --depth;
        }
    }
    return false;
}

}  // namespace

Result<RequestScan> scan_request(std::string& body) {
    if (is_deep(body)) return fail_limit(Kind::invalid, "request_depth", fmt::format("the body is nested deeper than {}", request_depth_max));
    body.reserve(body.size() + simdjson::SIMDJSON_PADDING);
    ondemand::parser parser;
    ondemand::document document;
    if (const auto code = parser.iterate(simdjson::padded_string_view(body.data(), body.size(), body.capacity())).get(document)) {
        return malformed(code);
    }
    ondemand::object object;
    if (const auto code = document.get_object().get(object)) {
        if (code == simdjson::INCORRECT_TYPE) return fail(Kind::invalid, "the body must be a JSON object");
        return malformed(code);
    }
    RequestScan scan;
    for (auto entry : object) {
        ondemand::field field;
        if (const auto code = std::move(entry).get(field)) return malformed(code);
        std::string_view key;
        if (const auto code = field.unescaped_key().get(key)) return malformed(code);
        Result<void> taken;
        if (key == "model") {
            taken = take_model(field.value(), body, scan);
        } else if (key == "stream") {
            taken = take_stream(field.value(), scan);
        } else if (key == "stream_options") {
            scan.has_stream_options = true;
        } else if (key == "seed") {
            taken = take_seed(field.value(), body, scan);
        } else if (key == "lora") {
            scan.has_lora = true;
        } else if (key == "keep_alive") {
            taken = take_keep_alive(field.value(), scan);
        }
        if (!taken) return Failure(taken.error());
    }
    const char* rest = nullptr;
    if (!document.current_location().get(rest)) {
        return fail(Kind::invalid, "something follows the JSON object in the body");
    }
    if (scan.model_end == 0) return fail(Kind::invalid, "'model' is missing; GET /v1/models lists the models");
    return scan;
}

void add_seed(std::string& body, RequestScan& scan, uint32_t seed) {
    constexpr std::string_view null = "null";
    const size_t at = scan.seed_null != 0 ? scan.seed_null : body.find('{') + 1;
    const size_t gone = scan.seed_null != 0 ? null.size() : 0;
    const std::string text = scan.seed_null != 0 ? fmt::format("{}", seed) : fmt::format("\"seed\":{},", seed);
    body.replace(at, gone, text);
    if (scan.model_begin < at) return;
    scan.model_begin += text.size() - gone;
    scan.model_end += text.size() - gone;
}

void replace_model(std::string& body, const RequestScan& scan, const std::string& name) {
    std::string quoted;
    append_json_string(quoted, name);
    body.replace(scan.model_begin, scan.model_end - scan.model_begin, quoted);
}

void add_members(std::string& body, const std::string& members) {
    body.insert(body.rfind('}'), members);
}

void add_stream_options(std::string& body) {
    body.insert(body.find('{') + 1, R"("stream_options":{"include_usage":true},)");
}

}  // namespace torpor::gateway
