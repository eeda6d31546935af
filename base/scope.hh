// What a caller may do: each key has a scope and every route names the scope it needs.
#pragma once

#include "base/error.hh"

#include <string_view>

namespace torpor {

// From least to most: whoever has a scope has all those before it.
enum class Scope {
    open,      // anybody; a route's need only, never a key's
    models,    // /v1/*: the default of a new key
    sessions,  // adds sessions and MCP
    admin,     // adds the state of the daemon
    owner,     // whoever reaches the socket; never a key's, since it can choose command lines
};

// "open", "models", "sessions", "admin" or "owner".
std::string_view name_of(Scope scope);

// A scope that a key can have: models, sessions or admin. Else `invalid`, naming the nearest.
Result<Scope> parse_scope(std::string_view text);

// Whether a caller with the scope `have` may use what needs `need`.
bool allows(Scope have, Scope need);

}  // namespace torpor
