// Who may do what: keys, scopes, and the checks that keep web pages of others away.
#pragma once

#include "base/error.hh"
#include "daemon/failed_keys.hh"
#include "daemon/routes.hh"
#include "store/keys.hh"

#include <string>
#include <vector>

namespace torpor {

// The names that Host and Origin headers may have besides those of loopback.
struct HostNames {
    std::vector<std::string> names;  // lower case, numbers as number_of() has them
    bool every_number = false;       // as Host, where all addresses are listened on: a number is no foreign site's name
};

// The principal of this request, if it may use this route. On the socket: the owner. On TCP: a key, in
// `Authorization: Bearer` or `x-api-key`.
// Errors: unauthorized (no key or a wrong one), busy (too many wrong ones from there), refused (foreign Host or
// Origin, or too small a scope).
Result<Principal> check_access(const http::Request& request, const http::Connection& connection, const Route& route,
                               const HostNames& hosts, store::Keys& keys, FailedKeys& failed_keys);

// Whether a Host header (NAME or NAME:PORT), or an Origin (http or https), names this machine.
bool is_our_host(std::string_view host, const HostNames& hosts);
bool is_our_origin(std::string_view origin, const HostNames& hosts);

}  // namespace torpor
