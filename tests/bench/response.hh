// Reads one HTTP/1.1 response after another from the pieces that come.
#pragma once

#include <algorithm>
#include <cctype>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

namespace torpor::bench {

class Response {
  public:
    int status = 0;
    bool is_whole = false;
    bool closes = false;       // the server will close the connection
    uint64_t body_bytes = 0;

    // Takes the bytes, appending what is body to `body`.
    void feed(std::string_view bytes, std::string& body) {
        if (in_head_) {
            head_ += bytes;
            const size_t end = head_.find("\r\n\r\n");
            if (end == std::string::npos) return;
            const std::string rest = head_.substr(end + 4);
            head_.resize(end + 2);
            read_head();
            return feed_body(rest, body);
        }
        feed_body(bytes, body);
    }

  private:
    void read_head() {
        status = std::atoi(head_.c_str() + 9);
        for (char& letter : head_) letter = static_cast<char>(std::tolower(static_cast<unsigned char>(letter)));
        is_chunked_ = head_.find("\r\ntransfer-encoding: chunked") != std::string::npos;
        closes = head_.find("\r\nconnection: close") != std::string::npos;
        const size_t length = head_.find("\r\ncontent-length:");
        left_ = length == std::string::npos ? 0 : std::strtoull(head_.c_str() + length + 17, nullptr, 10);
        in_head_ = false;
        if (!is_chunked_ && left_ == 0) is_whole = true;
    }

    void add(std::string_view bytes, std::string& body) {
        body += bytes;
        body_bytes += bytes.size();
        left_ -= bytes.size();
    }

    void feed_body(std::string_view bytes, std::string& body) {
        if (!is_chunked_) {
            add(bytes.substr(0, left_), body);
            is_whole = left_ == 0;
            return;
        }
        while (!bytes.empty() && !is_whole) {
            if (left_ > 0) {
                const std::string_view part = bytes.substr(0, left_);
                add(part, body);
                bytes.remove_prefix(part.size());
                continue;
            }
            // Between two chunks: a line with the next one's size, after the line end of the last one.
            const size_t end = bytes.find('\n');
            line_ += bytes.substr(0, end == std::string_view::npos ? bytes.size() : end + 1);
            bytes.remove_prefix(end == std::string_view::npos ? bytes.size() : end + 1);
            if (!line_.ends_with('\n')) return;
            if (line_ == "\r\n" && !after_last_) {
                line_.clear();
                continue;
            }
            if (after_last_) {
                is_whole = line_ == "\r\n";
            } else {
                left_ = std::strtoull(line_.c_str(), nullptr, 16);
                after_last_ = left_ == 0;
            }
            line_.clear();
        }
    }

    std::string head_, line_;
    bool in_head_ = true, is_chunked_ = false, after_last_ = false;
    uint64_t left_ = 0;  // of the body, or of the chunk
};

}  // namespace torpor::bench
