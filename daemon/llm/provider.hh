// Asking a model, whoever serves it: one interface, and one file for each wire that providers speak (wires in this folder).
//
// What goes in and out is plain: messages of blocks. Whatever a wire has that the others know nothing of, and that must go
// back to it unharmed (signatures of reasoning, encrypted reasoning, item ids), travels in Block::opaque.
#pragma once

#include "base/error.hh"

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

namespace torpor::llm {

struct Block {
    enum class Kind { text, reasoning, image, tool_call, tool_result };
    Kind kind = Kind::text;
    std::string text = {};        // of text; of reasoning as far as it may be shown; what a tool gave
    std::string call = {};        // the id of a tool call, in the call and in its result
    std::string tool = {};        // of a tool call: its name
    std::string input = {};       // of a tool call: a JSON object, as the model gave it
    bool is_error = false;        // of a tool result
    std::string media_type = {};  // of an image: image/png, image/jpeg, image/gif, image/webp
    std::string bytes = {};       // of an image: its bytes, not base64
    std::string opaque = {};      // JSON of the wire that made it; another wire leaves it out
    std::string wire = {};        // which one that was

    bool operator==(const Block&) const = default;
};

struct Message {
    enum class Role { user, assistant };
    Role role = Role::user;
    std::vector<Block> blocks;    // tool results are a user's
};

struct ToolSpec {
    std::string name;
    std::string description;
    std::string schema;           // JSON Schema of its input, an object
};

struct Request {
    std::string model = {};       // as the provider calls it
    std::string system = {};
    std::vector<Message> messages = {};
    std::vector<ToolSpec> tools = {};
    std::string must_call = {};      // one of the tools, and nothing else will do; empty: as the model likes
    uint64_t output_tokens_max = 0;  // 0: the provider's own, or what its wire demands
    std::string schema = {};         // JSON Schema that the answer's text must fit; empty: none
    std::optional<double> temperature = {};  // nothing: the provider's own
    std::string session = {};        // for the provider's routing of caches (prompt_cache_key and the like); empty: none
};

struct Usage {
    uint64_t input_tokens = 0;    // all, those of the cache included
    uint64_t output_tokens = 0;
    uint64_t cache_read_tokens = 0;
    uint64_t cache_write_tokens = 0;
};

enum class Stop { end, tool_calls, output_limit, refused };

struct Answer {
    std::vector<Block> blocks = {};   // in the model's order: text, reasoning, tool_call
    Stop stop = Stop::end;
    std::optional<Usage> usage = {};  // nothing: it did not say
    std::string model = {};           // as the provider says
};

// What comes while the model answers. Called on the thread that asked, in order; must not block for long.
class Listener {
  public:
    virtual ~Listener() = default;
    // A further piece of the block that will have this place in the answer; whole characters.
    virtual void on_delta(size_t block, Block::Kind kind, std::string_view piece) = 0;
    // That block is whole. (The answer has it again.)
    virtual void on_block(size_t block, const Block& whole) = 0;
    // Before a wait for another try: why, and how long. Nothing has been heard of this answer before.
    virtual void on_retry(const Error& why, std::chrono::milliseconds wait) = 0;
};

// One place where models are served. Any thread, any number at once.
class Provider {
  public:
    virtual ~Provider() = default;
    // Blocks until the answer is whole. Retries by itself, before the first byte of an answer only (limits.hh).
    // Errors: `cancelled` soon after `stop`; `unauthorized`, `refused`, `invalid` as the provider says; `too_large` if the
    // messages are beyond the model's window; `busy` if it was still overloaded after all retries; `timeout` for a stream
    // that stalled; `unavailable` if it cannot be reached; `engine` for an answer that is none: cut short, not
    // understandable, too long. The message is for people and names the provider.
    virtual Result<Answer> ask(const Request& request, Listener& listener, std::stop_token stop) = 0;
    // Tokens of this request's input: the provider's own count where it has a route for it, else an estimate (`is_exact`).
    struct Count {
        uint64_t tokens = 0;
        bool is_exact = false;
    };
    virtual Result<Count> count(const Request& request, std::stop_token stop) = 0;
};

// What is known of one model of one provider, from the configuration and the built-in table.
struct ModelFacts {
    std::string provider;             // its name: "anthropic", "local", ...
    std::string model;                // as the provider calls it
    uint64_t context_tokens = 0;      // its window; 0: not known
    uint64_t output_tokens_max = 0;   // 0: not known
    struct Price {
        double input = 0, output = 0, cache_read = 0, cache_write = 0;  // for a million tokens
    };
    std::optional<Price> price;       // nothing: not known
    bool takes_images = true;
    bool takes_tools = true;          // false: tools are offered in the prompt, and the answer is constrained (any_model.hh)
};

// The price of this, if it is known.
std::optional<double> cost_of(const ModelFacts& facts, const Usage& usage);

struct Chosen {
    std::shared_ptr<Provider> provider;
    ModelFacts facts;
};

// All providers of one daemon: the built-in ones, [provider.NAME] of config.toml, and "local" for the pool's models.
class Providers {
  public:
    virtual ~Providers() = default;
    // "provider/model", an alias of the configuration, a model of the pool, or a name that one provider's prefix claims.
    // `not_found` with the nearest names; `unauthorized` if the provider's key is not there, saying how to give one.
    virtual Result<Chosen> choose(std::string_view model) const = 0;
};

}  // namespace torpor::llm
