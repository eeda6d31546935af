// logs/requests.jsonl: one line of JSON a request, without a word of what was asked or answered.
#pragma once

#include "base/fd.hh"
#include "daemon/gateway/exchange.hh"

#include <filesystem>
#include <mutex>
#include <string>
#include <string_view>

namespace torpor::gateway {

// Any thread. Lines reach the file within a tick of the relay. Two files of request_log_bytes_max are kept.
class RequestLog {
  public:
    explicit RequestLog(std::filesystem::path path) : path_(std::move(path)) {}
    ~RequestLog() { flush(); }

    void add(const Outcome& outcome);
    void flush();

  private:
    const std::filesystem::path path_;
    std::mutex mutex_;
    Fd file_;             // guarded by mutex_
    std::string waiting_;  // guarded by mutex_
};

}  // namespace torpor::gateway
