// What differs between the APIs of providers: how a request is written and how an answer's stream is read. One file each, one
// line each in wires.cc.
#pragma once

#include "base/error.hh"
#include "daemon/llm/provider.hh"

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace torpor::llm {

// The stream of one answer. One thread.
class Decoder {
  public:
    virtual ~Decoder() = default;
    // One server-sent event. Fails with `engine` for what is none of this wire, and with what the provider says.
    virtual Result<void> take(std::string_view event, std::string_view data) = 0;
    // The stream has ended. `engine` if the answer had not.
    virtual Result<Answer> finish() = 0;
};

struct Wire {
    std::string_view name;                 // as in config.toml
    std::string_view path;                 // below base_url
    // The headers that carry the key, as "Name: value".
    std::vector<std::string> (*headers)(const std::string& key);
    std::string (*write)(const Request& request, const ModelFacts& facts);
    std::unique_ptr<Decoder> (*decode)(Listener& listener);
    // Of a route that counts a request's tokens; empty: none.
    std::string_view count_path = {};
    std::string (*write_count)(const Request& request) = nullptr;
};

std::span<const Wire* const> wires();
// Null if there is none of this name.
const Wire* find_wire(std::string_view name);

extern const Wire anthropic_messages, openai_chat, openai_responses;

}  // namespace torpor::llm
