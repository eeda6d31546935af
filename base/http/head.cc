#include "base/http/head.hh"

#include "base/limits.hh"

#include <strings.h>

#include <algorithm>
#include <array>
#include <charconv>

namespace torpor::http {

namespace {

using Refused = tl::unexpected<Refusal>;

Refused refuse(int status, std::string message, std::string_view limit = {}) {
    const Kind kind = limit.empty() ? Kind::invalid : Kind::too_large;
    return Refused(Refusal{status, {kind, std::move(message), {}, limit}});
}

Refused address_too_long() {
    return refuse(414, fmt::format("the request's address is longer than {} bytes", request_target_bytes_max), "request_target_bytes");
}

Refused head_too_large() {
    return refuse(431, fmt::format("the request's head is larger than {} bytes", request_head_bytes_max), "request_head_bytes");
}

bool same(std::string_view a, std::string_view b) {
    return a.size() == b.size() && ::strncasecmp(a.data(), b.data(), a.size()) == 0;
}

bool is_token_character(char c) {
    const bool is_letter_or_digit = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
    return is_letter_or_digit || std::string_view("!#$%&'*+-.^_`|~").find(c) != std::string_view::npos;
}

bool is_token(std::string_view text) {
    return !text.empty() && std::ranges::all_of(text, is_token_character);
}

// Those that can be said to be wrong for a path; what is no method at all goes no further.
constexpr std::array<std::string_view, 9> methods{"GET", "HEAD", "POST", "DELETE", "PUT", "PATCH", "OPTIONS", "TRACE", "CONNECT"};

bool is_control(char c) {
    return (static_cast<unsigned char>(c) < 0x20 && c != '\t') || c == 0x7f;
}

std::string_view trimmed(std::string_view text) {
    const auto is_blank = [](char c) { return c == ' ' || c == '\t'; };
    while (!text.empty() && is_blank(text.front())) text.remove_prefix(1);
    while (!text.empty() && is_blank(text.back())) text.remove_suffix(1);
    return text;
}

// Takes a line off, without its end.
std::string_view next_line(std::string_view& head) {
    const size_t end = head.find("\r\n");
    const std::string_view line = head.substr(0, end);
    head.remove_prefix(end + 2);
    return line;
}

std::optional<Refusal> check_request_line(std::string_view line) {
    const size_t first = line.find(' '), last = line.rfind(' ');
    if (first == std::string_view::npos || first == last) return refuse(400, "the request line is not METHOD PATH HTTP/1.1").value();
    const std::string_view method = line.substr(0, first), target = line.substr(first + 1, last - first - 1), version = line.substr(last + 1);
    if (version.starts_with("HTTP/") && version != "HTTP/1.1" && version != "HTTP/1.0") {
        return refuse(505, "only HTTP/1.1 and HTTP/1.0 are spoken here").value();
    }
    if (!version.starts_with("HTTP/")) return refuse(400, "the request line does not end with HTTP/1.1").value();
    if (std::ranges::find(methods, method) == methods.end()) return refuse(400, "the request's method is not known here").value();
    if (target.size() > request_target_bytes_max) return address_too_long().value();
    if (!target.starts_with('/')) return refuse(400, "the request's address must be a path that begins with /").value();
    const auto is_bad = [](char c) { return static_cast<unsigned char>(c) <= 0x20 || c == 0x7f; };
    if (std::ranges::any_of(target, is_bad)) return refuse(400, "the request's address has a blank or a control character in it").value();
    return {};
}

// What the fields say about the body, gathered line by line.
struct Fields {
    bool is_http_1_0 = false;
    std::optional<uint64_t> length;
    bool is_chunked = false;
    bool has_host = false;

    std::optional<Refusal> take(std::string_view name, std::string_view value);
};

std::optional<Refusal> Fields::take(std::string_view name, std::string_view value) {
    if (same(name, "content-length")) {
        uint64_t bytes = 0;
        const auto [end, code] = std::from_chars(value.data(), value.data() + value.size(), bytes);
        if (code != std::errc{} || end != value.data() + value.size()) return refuse(400, "Content-Length is not a number of bytes").value();
        if (length && *length != bytes) return refuse(400, "Content-Length is given twice, and differs").value();
        length = bytes;
    } else if (same(name, "transfer-encoding")) {
        if (!same(value, "chunked") || is_chunked || is_http_1_0) {
            return refuse(400, "the only Transfer-Encoding that is known here is chunked, once, with HTTP/1.1").value();
        }
        is_chunked = true;
    } else if (same(name, "host")) {
        if (has_host) return refuse(400, "the Host header is given twice").value();
        has_host = true;
    }
    return {};
}

std::optional<Refusal> check_field(std::string_view line, Fields& fields) {
    if (line.size() > request_line_bytes_max) {
        return refuse(431, fmt::format("a line of the request's head is longer than {} bytes", request_line_bytes_max), "request_line_bytes").value();
    }
    const size_t colon = line.find(':');
    if (colon == std::string_view::npos || !is_token(line.substr(0, colon))) {
        return refuse(400, "a line of the request's head is not NAME: VALUE").value();
    }
    const std::string_view value = trimmed(line.substr(colon + 1));
    if (std::ranges::any_of(value, is_control)) return refuse(400, "a header's value has a control character in it").value();
    return fields.take(line.substr(0, colon), value);
}

}  // namespace

tl::expected<Framing, Refusal> check_head(std::string_view head) {
    const std::string_view request_line = next_line(head);
    if (auto refusal = check_request_line(request_line)) return Refused(std::move(*refusal));
    Fields fields;
    fields.is_http_1_0 = request_line.ends_with("HTTP/1.0");
    size_t count = 0;
    for (std::string_view line = next_line(head); !line.empty(); line = next_line(head)) {
        if (++count > request_header_lines_max) {
            return refuse(431, fmt::format("the request has more than {} headers", request_header_lines_max), "request_header_lines");
        }
        if (auto refusal = check_field(line, fields)) return Refused(std::move(*refusal));
    }
    if (fields.is_chunked && fields.length) return refuse(400, "Content-Length and Transfer-Encoding exclude each other");
    return Framing{fields.is_chunked, fields.length.value_or(0)};
}

std::optional<Refusal> check_partial_head(std::string_view bytes) {
    for (size_t at = bytes.find('\n'); at != std::string_view::npos; at = bytes.find('\n', at + 1)) {
        if (at == 0 || bytes[at - 1] != '\r') return refuse(400, "the lines of a request's head must end with CR and LF").value();
    }
    const bool is_first_line = bytes.find("\r\n") == std::string_view::npos;
    if (is_first_line && !bytes.empty()) {
        const size_t blank = bytes.find(' ');
        if (!is_token(bytes.substr(0, blank))) return refuse(400, "this is not HTTP/1.1").value();
        constexpr size_t around = 64;  // method and version
        if (bytes.size() > request_target_bytes_max + around) return address_too_long().value();
    }
    if (bytes.size() >= request_head_bytes_max) return head_too_large().value();
    return {};
}

std::string_view path_in(std::string_view head) {
    const std::string_view line = head.substr(0, head.find("\r\n"));
    const size_t blank = line.find(' ');
    if (blank == std::string_view::npos) return {};
    const std::string_view target = line.substr(blank + 1, request_target_bytes_max);
    return target.substr(0, target.find_first_of(" ?"));
}

}  // namespace torpor::http
