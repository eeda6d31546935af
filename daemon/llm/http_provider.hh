// A provider that is asked over HTTP, on one of the wires.
#pragma once

#include "daemon/llm/http.hh"
#include "daemon/llm/provider.hh"
#include "daemon/llm/wire.hh"

#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace torpor::llm {

// Where a provider is reached, and by what.
struct Endpoint {
    std::string name;                // of the provider, for messages
    std::string base_url;            // the wire's paths go behind it
    std::string unix_socket = {};
    std::string key = {};
    std::vector<std::pair<std::string, std::string>> headers = {};
};

class HttpProvider final : public Provider {
  public:
    HttpProvider(HttpClient& client, const Wire& wire, Endpoint endpoint, ModelFacts facts)
        : client_(client), wire_(wire), endpoint_(std::move(endpoint)), facts_(std::move(facts)) {}

    Result<Answer> ask(const Request& request, Listener& listener, std::stop_token stop) override;
    Result<Count> count(const Request& request, std::stop_token stop) override;

  private:
    struct Try;
    HttpRequest request_to(std::string_view path, std::string body) const;
    Result<Answer> ask_once(const std::string& body, Listener& listener, std::stop_token stop, Try& one) const;
    Error named(Error error) const;

    HttpClient& client_;
    const Wire& wire_;
    const Endpoint endpoint_;
    const ModelFacts facts_;
};

// A rough count, for providers that have no route for it: three bytes a token are few for prose and many for code.
uint64_t estimate_tokens(const Request& request);

}  // namespace torpor::llm
