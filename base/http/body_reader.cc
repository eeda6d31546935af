#include "base/http/body_reader.hh"

#include "base/http/server.hh"
#include "base/text.hh"

#include <algorithm>
#include <charconv>
#include <tuple>

namespace torpor::http {

namespace {

constexpr size_t piece_bytes = 64 * 1024;

}  // namespace

BodyReader::BodyReader(SocketStream& stream, const Limits& limits, const TakeSlot& take_slot)
    : stream_(stream), limits_(limits), take_slot_(take_slot) {}

std::optional<Refusal> BodyReader::read(const Framing& framing, Body& body) {
    if (!framing.is_chunked && framing.bytes > limits_.body_bytes) {
        refuse(413, Kind::too_large, fmt::format("the body is larger than {} bytes", limits_.body_bytes), "body_bytes");
    } else if (framing.is_chunked) {
        take_chunks(body);
    } else {
        take(framing.bytes, body);
    }
    if (refusal_) body.clear();
    return std::move(refusal_);
}

// Memory is asked for as bytes come: a length that is only said costs nothing.
bool BodyReader::take(size_t count, Body& body) {
    while (count > 0) {
        const size_t wanted = std::min(count, piece_bytes);
        const size_t had = body.text.size();
        if (!body.share.grow(wanted)) {
            return refuse(503, Kind::unavailable,
                          fmt::format("bodies of {} bytes are under way already; try again in a moment", limits_.bodies_in_flight_bytes),
                          "bodies_in_flight_bytes");
        }
        body.text.resize(had + wanted);
        for (size_t got = 0; got < wanted;) {
            const ssize_t n = read_some(body.text.data() + had + got, wanted - got);
            if (n <= 0) return false;
            got += static_cast<size_t>(n);
        }
        count -= wanted;
    }
    return true;
}

bool BodyReader::take_chunks(Body& body) {
    std::string line;
    for (;;) {
        if (!take_line(line)) return false;
        const std::string_view size_text = std::string_view(line).substr(0, line.find_first_of("; \t"));
        uint64_t size = 0;
        const auto [end, code] = std::from_chars(size_text.data(), size_text.data() + size_text.size(), size, 16);
        if (code != std::errc{} || end != size_text.data() + size_text.size()) {
            return refuse(400, Kind::invalid, "a chunk of the body has no size that can be read");
        }
        if (size == 0) break;
        if (size > limits_.body_bytes - body.text.size()) {
            return refuse(413, Kind::too_large, fmt::format("the body is larger than {} bytes", limits_.body_bytes), "body_bytes");
        }
        if (!take(size, body) || !take_line(line)) return false;
        if (!line.empty()) return refuse(400, Kind::invalid, "a chunk of the body is longer than it says");
    }
    for (size_t lines = 0; take_line(line); ++lines) {  // trailers, which say nothing here
        if (line.empty()) return true;
        if (lines == request_header_lines_max) {
            return refuse(431, Kind::too_large, fmt::format("more than {} lines follow the body", request_header_lines_max), "request_header_lines");
        }
    }
    return false;
}

// A line of the chunked framing, without its end.
bool BodyReader::take_line(std::string& line) {
    line.clear();
    for (;;) {
        char c = 0;
        if (read_some(&c, 1) != 1) return false;
        if (c == '\n') {
            if (!line.ends_with('\r')) return refuse(400, Kind::invalid, "the lines between chunks must end with CR and LF");
            line.pop_back();
            return true;
        }
        if (line.size() == request_line_bytes_max) {
            return refuse(431, Kind::too_large, "a line between the body's chunks is too long", "request_line_bytes");
        }
        line += c;
    }
}

ssize_t BodyReader::read_some(char* to, size_t size) {
    using std::chrono::ceil;
    using std::chrono::milliseconds;
    const auto stalls = Clock::now() + limits_.body_stall, ends = began_ + limits_.body_time, slow = began_ + body_slow;
    for (auto now = Clock::now();; now = Clock::now()) {
        if (now >= slow && !slot_ && (slot_ = take_slot_()) == nullptr) {
            refuse(503, Kind::unavailable, "too many slow requests are under way; try again in a moment", "http_threads");
            return -1;
        }
        if (now >= ends || now >= stalls) {
            const auto& [what, limit, name] = now >= ends ? std::tuple{"whole body", limits_.body_time, "body_time"}
                                                          : std::tuple{"next piece of the body", limits_.body_stall, "body_stall"};
            refuse(408, Kind::timeout, fmt::format("the {} did not come within {}", what, format_duration(limit)), name);
            return -1;
        }
        const auto wait = std::min(std::min(ends, stalls), slot_ ? ends : slow) - now;
        const ssize_t count = stream_.read_within(to, size, std::max(ceil<milliseconds>(wait), milliseconds(1)));
        if (count > 0) return count;
        if (count == 0 || !stream_.has_stalled()) {
            refuse(400, Kind::invalid, "the connection ended in the middle of the body");
            return -1;
        }
    }
}

bool BodyReader::refuse(int status, Kind kind, std::string message, std::string_view limit) {
    refusal_ = Refusal{status, {kind, std::move(message), {}, limit}};
    return false;
}

}  // namespace torpor::http
