#include "daemon/gateway/stream_tap.hh"

#include "daemon/gateway/limits.hh"

#include <simdjson.h>

namespace torpor::gateway {

namespace {

namespace dom = simdjson::dom;

constexpr std::string_view usage_key = "\"usage\"";

bool take_number(dom::object usage, std::string_view name, uint64_t& out) {
    uint64_t number = 0;
    if (usage[name].get(number)) return false;
    out = number;
    return true;
}

bool take_usage(dom::element place, Usage& usage) {
    dom::object object;
    if (place["usage"].get(object)) return false;
    bool found = take_number(object, "prompt_tokens", usage.input_tokens);
    found |= take_number(object, "input_tokens", usage.input_tokens);
    take_number(object, "cache_read_input_tokens", usage.cached_tokens);
    found |= take_number(object, "completion_tokens", usage.output_tokens);
    found |= take_number(object, "output_tokens", usage.output_tokens);
    return found;
}

// One past the end of the first event in `bytes`, 0 if it has not ended.
size_t end_of_event(std::string_view bytes) {
    for (size_t at = bytes.find('\n'); at != std::string_view::npos && at + 1 < bytes.size(); at = bytes.find('\n', at + 1)) {
        if (bytes[at + 1] == '\n') return at + 2;
        if (bytes[at + 1] == '\r' && at + 2 < bytes.size() && bytes[at + 2] == '\n') return at + 3;
    }
    return 0;
}

// The event's data; events of several data lines have no usage that we know.
std::string_view data_of(std::string_view event) {
    const size_t at = event.starts_with("data:") ? 0 : event.find("\ndata:");
    if (at == std::string_view::npos) return {};
    event.remove_prefix(at == 0 ? 5 : at + 6);
    return event.substr(0, event.find_first_of("\r\n"));
}

}  // namespace

bool read_usage(std::string_view json, Usage& usage, bool* is_only_usage) {
    thread_local dom::parser parser;
    dom::element root;
    if (parser.parse(json.data(), json.size()).get(root)) return false;
    bool found = take_usage(root, usage);
    for (const std::string_view around : {"message", "response"}) {
        dom::element inner;
        if (!root[around].get(inner)) found |= take_usage(inner, usage);
    }
    if (is_only_usage != nullptr) {
        dom::array choices;
        *is_only_usage = found && !root["choices"].get(choices) && choices.size() == 0;
    }
    return found;
}

void StreamTap::take_event(std::string_view event, std::string& out) {
    bool is_only_usage = false;
    if (event.find(usage_key) != std::string_view::npos) read_usage(data_of(event), usage_, &is_only_usage);
    if (!(is_only_usage && drops_usage_)) out.append(event);
}

void StreamTap::feed(std::string_view bytes, std::string& out) {
    if (pending_.empty() && !is_oversized_ && bytes.ends_with("\n\n") && bytes.find(usage_key) == std::string_view::npos) {
        out.append(bytes);  // the common case: whole events without usage
        return;
    }
    while (!bytes.empty()) {
        const size_t had = pending_.size();
        // A boundary may lie across the seam.
        const size_t overlap = std::min<size_t>(had, 2);
        std::string seam = pending_.substr(had - overlap);
        size_t end = 0;
        if (overlap > 0) {
            seam.append(bytes.substr(0, 2));
            if (const size_t in_seam = end_of_event(seam); in_seam > overlap) end = in_seam - overlap;
        }
        if (end == 0) end = end_of_event(bytes);
        if (end == 0) {
            if (is_oversized_ || had + bytes.size() > event_bytes_max) {
                is_oversized_ = true;
                out.append(std::exchange(pending_, {})).append(bytes);
            } else {
                pending_.append(bytes);
            }
            return;
        }
        if (is_oversized_) {
            out.append(bytes.substr(0, end));
            is_oversized_ = false;
        } else if (had > 0) {
            pending_.append(bytes.substr(0, end));
            take_event(pending_, out);
            pending_.clear();
        } else {
            take_event(bytes.substr(0, end), out);
        }
        bytes.remove_prefix(end);
    }
}

void StreamTap::cut(std::string& out) {
    pending_.clear();
    if (std::exchange(is_oversized_, false)) out.append("\n\n");
}

void StreamTap::finish(std::string& out) {
    if (!pending_.empty()) take_event(std::exchange(pending_, {}), out);
}

}  // namespace torpor::gateway
