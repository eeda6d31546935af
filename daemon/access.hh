// Who may do what: keys, scopes, and the checks that keep web pages of others away.
#pragma once

#include "base/error.hh"
#include "daemon/failed_keys.hh"
#include "daemon/routes.hh"
#include "store/keys.hh"

namespace torpor {

// The principal of this request, if it may use this route. On the socket: the owner. On TCP: a key, in
// `Authorization: Bearer` or `x-api-key`.
// Errors: unauthorized (no key or a wrong one), busy (too many wrong ones from there), refused (foreign Host or
// Origin, or too small a scope).
Result<Principal> check_access(const http::Request& request, const http::Connection& connection, const Route& route,
                               store::Keys& keys, FailedKeys& failed_keys);

// Whether a Host or Origin header names this machine's loopback.
bool is_loopback_host(std::string_view host);
bool is_loopback_origin(std::string_view origin);

}  // namespace torpor
