// One request to a worker and its answer, with an eye on the client all the while.
#pragma once

#include "daemon/gateway/response_parser.hh"
#include "gpu/lease.hh"

#include <chrono>
#include <optional>
#include <memory>
#include <string>
#include <string_view>

namespace torpor::gateway {

// Holds the lease and one connection. One thread at a time.
class Exchange {
  public:
    // `client_fd`: when its peer hangs up, every wait ends with `cancelled`; -1: none.
    Exchange(gpu::Lease lease, int client_fd);
    ~Exchange();

    // Sends the request and reads the answer's head. A kept connection that turns out to be dead is
    // replaced once. Errors: engine, timeout, cancelled.
    Result<void> send(std::string_view path, std::string_view headers, std::string_view body);

    // The next piece of the body, decoded; empty at its end. Errors as above.
    Result<std::string> read();

    // The rest of the body. `too_large` past whole_answer_bytes_max.
    Result<std::string> read_all();

    // Gives back connection and lease; after a complete answer the connection is kept.
    void finish();

    int status() const { return parser_.status(); }
    const std::string& content_type() const { return parser_.content_type(); }
    const gpu::Lease& lease() const { return *lease_; }
    double first_byte_ms() const { return first_byte_ms_; }

  private:
    Result<void> send_once(std::string_view head, std::string_view body, bool& was_kept);
    Result<void> receive(std::chrono::milliseconds time_max);
    Result<void> wait(short events, std::chrono::milliseconds time_max);

    std::optional<gpu::Lease> lease_;
    int client_fd_;
    Fd connection_;
    ResponseParser parser_;
    std::string decoded_;
    double first_byte_ms_ = 0;
};

}  // namespace torpor::gateway
