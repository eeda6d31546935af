#include "base/sse.hh"

namespace torpor {

Result<void> SseParser::feed(std::string_view bytes, const OnEvent& on_event) {
    if (refused_) return refuse();
    while (!bytes.empty()) {
        if (skip_newline_) {
            skip_newline_ = false;
            if (bytes.front() == '\n') {
                bytes.remove_prefix(1);
                continue;
            }
        }
        const size_t end = bytes.find_first_of("\r\n");
        const std::string_view piece = bytes.substr(0, end);
        if (is_too_large(line_.size() + piece.size())) return refuse();
        if (end == std::string_view::npos) {
            line_ += piece;
            return {};
        }
        skip_newline_ = bytes[end] == '\r';
        bytes.remove_prefix(end + 1);
        if (line_.empty()) {
            take_line(piece, on_event);
        } else {
            line_ += piece;
            const std::string whole = std::exchange(line_, {});
            take_line(whole, on_event);
        }
    }
    return {};
}

// The name and the id count too: each replaces the one before, so data is what can grow.
bool SseParser::is_too_large(size_t line_bytes) const {
    return line_bytes > event_bytes_max_ || data_.size() > event_bytes_max_ - line_bytes;
}

Failure SseParser::refuse() {
    refused_ = true;
    line_.clear();
    data_.clear();
    return fail(Kind::too_large, "an event in the stream is larger than {} bytes", event_bytes_max_);
}

void SseParser::take_line(std::string_view line, const OnEvent& on_event) {
    if (std::exchange(is_first_line_, false) && line.starts_with("\xEF\xBB\xBF")) line.remove_prefix(3);
    if (line.empty()) return dispatch(on_event);
    const size_t colon = line.find(':');
    if (colon == 0) return;  // a comment
    if (colon == std::string_view::npos) return take_field(line, {});
    std::string_view value = line.substr(colon + 1);
    if (value.starts_with(' ')) value.remove_prefix(1);
    take_field(line.substr(0, colon), value);
}

// `retry` is for browsers, which connect again by themselves; nobody here does.
void SseParser::take_field(std::string_view name, std::string_view value) {
    if (name == "data") {
        data_ += value;
        data_ += '\n';
    } else if (name == "event") {
        event_ = value;
    } else if (name == "id" && value.find('\0') == std::string_view::npos) {
        id_ = value;
    }
}

void SseParser::dispatch(const OnEvent& on_event) {
    last_event_id_ = id_;
    const std::string event = std::exchange(event_, {});
    if (data_.empty()) return;
    const std::string data = std::exchange(data_, {});
    on_event(event.empty() ? "message" : std::string_view(event), std::string_view(data).substr(0, data.size() - 1));
}

}  // namespace torpor
