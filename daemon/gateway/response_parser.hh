// HTTP/1.1 answers as workers give them, read piece by piece (RFC 9112).
//
// Why not cpp-httplib's client: it blocks in read, and the gateway must wait for the worker and for the
// client's going away at the same time. See docs/dependencies.md.
#pragma once

#include "base/error.hh"

#include <cstdint>
#include <string>
#include <string_view>

namespace torpor::gateway {

class ResponseParser {
  public:
    // Takes the next bytes and appends what of them is body, decoded, to `out`. Errors: `engine`.
    Result<void> feed(std::string_view bytes, std::string& out);
    // The peer closed. Fails if the answer was not complete.
    Result<void> finish();

    bool has_head() const { return stage_ != Stage::head; }
    bool is_complete() const { return stage_ == Stage::done; }
    // Whether the connection can be used again once is_complete().
    bool keeps_alive() const { return keep_alive_; }

    // Once has_head():
    int status() const { return status_; }
    const std::string& content_type() const { return content_type_; }

  private:
    enum class Stage { head, counted, chunk_size, chunk, chunk_end, trailer, until_close, done };

    Result<void> take_head(std::string_view head);
    Result<void> take_header(std::string_view name, std::string_view value);
    Result<void> take_line(std::string_view line);
    void begin_body();

    Stage stage_ = Stage::head;
    std::string pending_;       // an incomplete head or line
    int status_ = 0;
    std::string content_type_;
    bool keep_alive_ = true;
    bool chunked_ = false;
    bool has_length_ = false;
    uint64_t left_ = 0;         // of the body, or of the chunk
    size_t around_bytes_ = 0;   // of heads and trailers
};

}  // namespace torpor::gateway
