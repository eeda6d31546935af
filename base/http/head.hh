// What must be true of a request's head before anything else looks at it (RFC 9112, read strictly).
//
// Why before cpp-httplib, which parses it again: it skips or guesses where two readers could differ about where a
// request ends (bare line feeds, unknown transfer codings, a length beside chunks), and gives no words to its errors.
#pragma once

#include "base/error.hh"

#include <cstdint>
#include <optional>
#include <string_view>

namespace torpor::http {

// Why a request goes no further: its status, which may be finer than the kind's, and the words.
struct Refusal {
    int status;
    Error error;
};

// How a request's body is delimited.
struct Framing {
    bool is_chunked = false;
    uint64_t bytes = 0;  // if it is not chunked

    bool has_body() const { return is_chunked || bytes > 0; }
};

// `head`: complete, with the empty line at its end. Thread-safe, as all of this.
tl::expected<Framing, Refusal> check_head(std::string_view head);

// A head that is not complete yet: whether it never will be a good one.
std::optional<Refusal> check_partial_head(std::string_view bytes);

// The path in what has come of a head, as it stands there; empty if there is none.
std::string_view path_in(std::string_view head);

}  // namespace torpor::http
