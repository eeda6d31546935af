// The first question to a model that is deployed: it shows that the model answers, and people can ask it again with curl.
#pragma once

#include "base/error.hh"
#include "gpu/lease.hh"
#include "gpu/model_file.hh"

#include <string>
#include <string_view>

namespace torpor::api {

struct FirstAnswer {
    std::string_view path;  // of the wire that answered, like /v1/chat/completions
    std::string body;       // what was asked
    double ms = 0;
};

// Asks on the first wire that the model speaks, then on the next, until one is answered with a 2xx. Blocks; any thread
// but the loop's. Errors: `engine` with what the engine said on the first wire, `cancelled` when the peer of `gone_fd`
// hangs up, `timeout`.
Result<FirstAnswer> ask_first(const gpu::Lease& lease, const gpu::Model& model, int gone_fd);

}  // namespace torpor::api
