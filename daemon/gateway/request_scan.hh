// What the gateway must know of a request's body: the model's name and where it stands, whether a stream is
// wanted, whether it has a seed, and how long the worker is to stay awake. Everything else goes to the engine as it came.
#pragma once

#include "base/error.hh"

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

namespace torpor::gateway {

struct RequestScan {
    std::string model;
    size_t model_begin = 0;  // the JSON string's first quote
    size_t model_end = 0;    // one past its last quote
    bool wants_stream = false;
    bool has_stream = false;          // the key was there
    bool has_stream_options = false;
    bool has_seed = false;            // null is none
    size_t seed_null = 0;             // where the null stands, if one does
    bool has_lora = false;            // llama-server's way to choose adapters
    // As Ollama has it: a number of seconds or a duration like "10m"; 0: sleep after this answer; negative: never.
    std::optional<std::chrono::milliseconds> keep_alive;
};

// Looks at the top level of the JSON object only. `body` may be given more capacity, its text stays.
// Refuses what is no object, has no `model`, has it twice (parsers disagree which one counts), or has
// wrong types; deeper mistakes are the engine's to find. The same for `stream` and `keep_alive`.
Result<RequestScan> scan_request(std::string& body);

// Gives a body without a seed this one. Of what was scanned the model's place is moved along.
void add_seed(std::string& body, RequestScan& scan, uint32_t seed);

// Puts another name in the place of the scanned one.
void replace_model(std::string& body, const RequestScan& scan, const std::string& name);

// Puts members, each after a comma, at the object's end: whoever reads it takes the last of two with one key.
void add_members(std::string& body, const std::string& members);

// Asks for usage at the stream's end; not if the body has stream_options. What was scanned has moved then.
void add_stream_options(std::string& body);

}  // namespace torpor::gateway
