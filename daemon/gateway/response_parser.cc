#include "daemon/gateway/response_parser.hh"

#include "daemon/gateway/limits.hh"

#include <strings.h>

#include <algorithm>
#include <charconv>

namespace torpor::gateway {

namespace {

bool same(std::string_view a, std::string_view b) {
    return a.size() == b.size() && ::strncasecmp(a.data(), b.data(), a.size()) == 0;
}

std::string_view trimmed(std::string_view text) {
    while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
    while (!text.empty() && (text.back() == ' ' || text.back() == '\t' || text.back() == '\r')) text.remove_suffix(1);
    return text;
}

Failure nonsense(std::string_view what) {
    return fail(Kind::engine, "the engine's answer is not HTTP: {}", what);
}

}  // namespace

Result<void> ResponseParser::take_header(std::string_view name, std::string_view value) {
    if (same(name, "content-length")) {
        uint64_t length = 0;
        const auto [end, code] = std::from_chars(value.data(), value.data() + value.size(), length);
        if (code != std::errc{} || end != value.data() + value.size() || (has_length_ && length != left_)) {
            return nonsense("a wrong Content-Length");
        }
        has_length_ = true;
        left_ = length;
    } else if (same(name, "transfer-encoding")) {
        if (!same(value, "chunked")) return nonsense("an unknown Transfer-Encoding");
        chunked_ = true;
    } else if (same(name, "connection")) {
        if (same(value, "close")) keep_alive_ = false;
    } else if (same(name, "content-type")) {
        content_type_ = value;
    } else if (same(name, "content-encoding") && !same(value, "identity")) {
        return nonsense("a Content-Encoding that nobody asked for");
    }
    return {};
}

Result<void> ResponseParser::take_head(std::string_view head) {
    if (!head.starts_with("HTTP/1.") || head.size() < 12) return nonsense("no status line");
    if (head[7] == '0') keep_alive_ = false;
    const auto [end, code] = std::from_chars(&head[9], &head[12], status_);
    if (code != std::errc{} || end != &head[12] || status_ < 100 || status_ > 599) return nonsense("no status");
    size_t at = head.find("\r\n");
    while (at != std::string_view::npos && at + 2 < head.size()) {
        head.remove_prefix(at + 2);
        at = head.find("\r\n");
        const std::string_view line = head.substr(0, at);
        const size_t colon = line.find(':');
        if (line.empty()) break;
        if (colon == std::string_view::npos || colon == 0) return nonsense("a header without a colon");
        if (auto taken = take_header(line.substr(0, colon), trimmed(line.substr(colon + 1))); !taken) return taken;
    }
    if (chunked_ && has_length_) return nonsense("a Content-Length beside chunks");
    begin_body();
    return {};
}

void ResponseParser::begin_body() {
    if (status_ < 200) {  // 100 Continue and its like: the real head follows
        stage_ = Stage::head;
        chunked_ = has_length_ = false;
        left_ = 0;
    } else if (status_ == 204 || status_ == 304 || (has_length_ && !chunked_ && left_ == 0)) {
        stage_ = Stage::done;
    } else if (chunked_) {
        stage_ = Stage::chunk_size;
    } else if (has_length_) {
        stage_ = Stage::counted;
    } else {
        stage_ = Stage::until_close;
        keep_alive_ = false;
    }
}

// A line of the chunked framing, without its end.
Result<void> ResponseParser::take_line(std::string_view line) {
    if (stage_ == Stage::chunk_end) {
        if (!line.empty()) return nonsense("a chunk longer than it said");
        stage_ = Stage::chunk_size;
        return {};
    }
    if (stage_ == Stage::trailer) {
        if (line.empty()) stage_ = Stage::done;
        return {};
    }
    const std::string_view digits = trimmed(line.substr(0, line.find(';')));
    const auto [end, code] = std::from_chars(digits.data(), digits.data() + digits.size(), left_, 16);
    if (code != std::errc{} || end != digits.data() + digits.size()) return nonsense("a wrong chunk size");
    stage_ = left_ == 0 ? Stage::trailer : Stage::chunk;
    return {};
}

Result<void> ResponseParser::feed(std::string_view bytes, std::string& out) {
    while (!bytes.empty()) {
        switch (stage_) {
            case Stage::done: keep_alive_ = false; return nonsense("more than one answer");
            case Stage::until_close:
                out.append(bytes);
                return {};
            case Stage::counted:
            case Stage::chunk: {
                const size_t count = static_cast<size_t>(std::min<uint64_t>(left_, bytes.size()));
                out.append(bytes.substr(0, count));
                bytes.remove_prefix(count);
                left_ -= count;
                if (left_ == 0) stage_ = stage_ == Stage::chunk ? Stage::chunk_end : Stage::done;
                break;
            }
            case Stage::head:
            case Stage::chunk_size:
            case Stage::chunk_end:
            case Stage::trailer: {
                const bool in_head = stage_ == Stage::head;
                const std::string_view mark = in_head ? "\r\n\r\n" : "\r\n";
                const size_t had = pending_.size();
                const size_t limit = in_head ? answer_head_bytes_max : answer_line_bytes_max;
                pending_.append(bytes.substr(0, limit + mark.size() - std::min(limit, had)));
                const size_t end = pending_.find(mark, had < mark.size() ? 0 : had - mark.size());
                if (end == std::string::npos) {
                    if (pending_.size() > limit) return nonsense("a head or line that is too long");
                    return {};
                }
                if (in_head || stage_ == Stage::trailer) around_bytes_ += end + mark.size();
                if (around_bytes_ > answer_head_bytes_max) return nonsense("heads or trailers without end");
                bytes.remove_prefix(end + mark.size() - had);
                const std::string text = std::move(pending_);
                pending_.clear();
                const auto taken = in_head ? take_head(std::string_view(text).substr(0, end + 2))
                                           : take_line(std::string_view(text).substr(0, end));
                if (!taken) return taken;
                break;
            }
        }
    }
    return {};
}

Result<void> ResponseParser::finish() {
    if (stage_ == Stage::until_close) stage_ = Stage::done;
    if (stage_ != Stage::done) return fail(Kind::engine, "the engine closed the connection in the middle of its answer");
    return {};
}

}  // namespace torpor::gateway
