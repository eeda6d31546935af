// What can go wrong, in one closed set of kinds.
//
// Every function whose failure a caller can act on returns Result<T>. The message is for people: what
// failed, why, and what to do next, with no trailing full stop. `cause` is what the system said
// (errno text, an engine's last words); it may be empty. Neither ever holds a secret.
// Exceptions do not cross a folder's border.
#pragma once

#include <fmt/format.h>

#include <string>
#include <string_view>
#include <tl/expected.hpp>
#include <utility>

namespace torpor {

enum class Kind {
    invalid,       // the caller's input is wrong
    unauthorized,  // no key, or not one of ours
    refused,       // known caller, not allowed
    not_found,     // no such model, key, route
    wrong_method,  // such a path, but not with this method
    conflict,      // it exists already, or its state forbids this now
    too_large,     // over a named size limit
    busy,          // over a named rate or queue limit; try later
    cancelled,     // the caller went away or asked to stop
    engine,        // a model worker failed
    unavailable,   // this daemon cannot do it now (shutting down, all threads in use)
    timeout,       // a deadline passed
    no_daemon,     // the daemon cannot be reached or started
    internal,      // our own mistake, or the system's
};

struct Error {
    Kind kind = Kind::internal;
    std::string message;
    std::string cause = {};
    std::string_view limit = {};  // the name of the limit that was hit, a literal; for metrics
    int retry_after_s = 1;        // where trying again helps (busy, unavailable)

    // Message and cause in one line.
    std::string text() const;
};

template <class T>
using Result = tl::expected<T, Error>;

using Failure = tl::unexpected<Error>;

template <class... Args>
Failure fail(Kind kind, fmt::format_string<Args...> format, Args&&... args) {
    return Failure(Error{kind, fmt::format(format, std::forward<Args>(args)...), {}});
}

// `message` over a named limit.
inline Failure fail_limit(Kind kind, std::string_view limit, std::string message) {
    return Failure(Error{kind, std::move(message), {}, limit, 1});
}

// Adds strerror(errno) as the cause; call it before anything else can change errno.
Failure fail_errno(Kind kind, std::string message);

// The one table of what a kind means on each wire.
struct KindRow {
    Kind kind;
    std::string_view name;  // as in JSON errors of /api
    int http_status;
    int json_rpc_code;
    int exit_status;
};

const KindRow& row_of(Kind kind);

// The row that has this name or, failing that, this HTTP status; the `internal` row if neither is known.
const KindRow& row_of_answer(std::string_view name, int http_status);

}  // namespace torpor
