// Posting a request and reading the answer as it comes, by libcurl: https with the system's roots, proxies as the environment
// says, no redirects. Source: https://curl.se/libcurl/c/.
#pragma once

#include "base/error.hh"

#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

namespace torpor::llm {

struct HttpRequest {
    std::string url;
    std::string unix_socket = {};          // instead of a connection to the URL's host; empty: none
    std::vector<std::string> headers = {};  // "Name: value"
    std::string body = {};
};

struct HttpHead {
    long status = 0;
    std::string content_type;
    std::optional<std::chrono::milliseconds> retry_after;
};

// Keeps connections for those who ask again. Any thread, any number at once.
class HttpClient {
  public:
    HttpClient();
    ~HttpClient();
    HttpClient(const HttpClient&) = delete;
    HttpClient& operator=(const HttpClient&) = delete;

    // Blocks until the answer is whole. `on_head` is called once, then `on_bytes` for each piece, on this thread; an error of
    // either ends it and is returned. Ends with `cancelled` as soon as `stop` says so, whatever it waits for. Errors:
    // `unavailable` if no connection came about, `timeout` if nothing came for too long (limits.hh), `engine` if the answer
    // broke off. Messages name the host, never a header.
    Result<void> post(const HttpRequest& request, const std::function<Result<void>(const HttpHead&)>& on_head,
                      const std::function<Result<void>(std::string_view)>& on_bytes, std::stop_token stop);

  private:
    void* take();
    void give(void* multi);

    std::mutex mutex_;
    std::vector<void*> idle_;  // CURLM, each with its connections; guarded by mutex_
};

}  // namespace torpor::llm
