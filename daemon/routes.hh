// The one table of routes. A route says which scope it needs, or it does not compile.
#pragma once

#include "base/http/server.hh"
#include "base/scope.hh"
#include "store/keys.hh"

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace torpor {

struct Daemon;

enum class Method { get, post, remove };

// Whether a request may keep its thread for long: a stream, or the wait for a model.
enum class Lasts { briefly, long_ };

// Who calls: the socket's owner, or a key.
struct Principal {
    std::string name;
    Scope scope = Scope::open;
    std::shared_ptr<const store::KeyLimits> limits;  // a key's; null for the owner
};

// One request on its way to its handler.
struct Call {
    Daemon& daemon;
    const http::Request& request;
    http::Body body;
    std::vector<std::string> parameters;  // what stood for {…} in the pattern, percent-decoded
    Principal principal;
    std::shared_ptr<http::LongSlot> long_slot;  // a streamed response keeps it
};

using Handler = void (*)(Call&, http::Response&);

struct Route {
    consteval Route(Method route_method, std::string_view route_pattern, Scope needed, Lasts duration, Handler route_handler)
        : method(route_method), pattern(route_pattern), scope(needed), lasts(duration), handler(route_handler) {}

    Method method;
    std::string_view pattern;  // segments; {name} stands for any one
    Scope scope;
    Lasts lasts;
    Handler handler;
};

std::span<const Route> routes();

struct RouteMatch {
    const Route* route = nullptr;
    std::vector<std::string> parameters;
    std::string allowed;  // where the path is known but not with this method: "GET, HEAD, DELETE"
};

// `path` without query. Bounded by request_path_bytes_max; longer ones match nothing.
RouteMatch match_route(std::span<const Route> table, std::string_view method, std::string_view path);

}  // namespace torpor
