// Answers that every handler gives alike.
#pragma once

#include "base/error.hh"
#include "base/http/server.hh"

#include <string>

namespace torpor {

void answer_json(http::Response& response, int status, std::string json);

// {"error":{"kind","message","cause"}} with the kind's status, and Retry-After where trying again helps.
void answer_error(http::Response& response, const Error& error);

}  // namespace torpor
