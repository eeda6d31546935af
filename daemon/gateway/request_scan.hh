// What the gateway must know of a request's body: the model's name and where it stands, and whether a
// stream is wanted. Everything else goes to the engine as it came.
#pragma once

#include "base/error.hh"

#include <cstddef>
#include <string>

namespace torpor::gateway {

struct RequestScan {
    std::string model;
    size_t model_begin = 0;  // the JSON string's first quote
    size_t model_end = 0;    // one past its last quote
    bool wants_stream = false;
};

// Looks at the top level of the JSON object only. `body` may be given more capacity, its text stays.
// Refuses what is no object, has no `model`, has it twice (parsers disagree which one counts), or has
// wrong types; deeper mistakes are the engine's to find.
Result<RequestScan> scan_request(std::string& body);

// Puts another name in the place of the scanned one.
void replace_model(std::string& body, const RequestScan& scan, const std::string& name);

}  // namespace torpor::gateway
