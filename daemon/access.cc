#include "daemon/access.hh"

namespace torpor {

bool is_loopback_host(std::string_view host) {
    if (host.starts_with("[::1]")) {
        host.remove_prefix(5);
        return host.empty() || host.starts_with(':');
    }
    const std::string_view name = host.substr(0, host.find(':'));
    return name == "127.0.0.1" || name == "localhost";
}

bool is_loopback_origin(std::string_view origin) {
    for (const std::string_view scheme : {"http://", "https://"}) {
        if (origin.starts_with(scheme)) return is_loopback_host(origin.substr(scheme.size()));
    }
    return false;
}

Result<Principal> check_access(const http::Request& request, const http::Connection& connection, const Route& route,
                               store::Keys& keys, FailedKeys& failed_keys) {
    // A page of a foreign site may make a browser call us, and with a rebound name even read the answer.
    if (request.has_header("Origin") && !is_loopback_origin(request.get_header_value("Origin"))) {
        return fail(Kind::refused, "requests from other web sites are refused (Origin)");
    }
    if (connection.door == http::Door::socket) return Principal{"owner", Scope::owner, {}};
    if (!is_loopback_host(request.get_header_value("Host"))) {
        return fail(Kind::refused, "the Host header must name 127.0.0.1 or localhost");
    }
    if (route.scope == Scope::open) return Principal{};
    std::string key = request.get_header_value("x-api-key");
    const std::string authorization = request.get_header_value("Authorization");
    constexpr std::string_view bearer = "Bearer ";
    if (key.empty() && authorization.starts_with(bearer)) key = authorization.substr(bearer.size());
    if (key.empty()) {
        return fail(Kind::unauthorized, "a key is needed here: make one with torpor key add NAME, and send it as "
                                        "Authorization: Bearer KEY or x-api-key: KEY");
    }
    const auto found = keys.find(key);
    if (!found) return Failure(failed_keys.refuse(connection.stream.peer_address(), route.pattern));
    if (!allows(found->scope, route.scope)) {
        if (route.scope == Scope::owner) {
            return fail(Kind::refused, "this is for the machine's owner alone, through torpor.sock; no key can do it");
        }
        return fail(Kind::refused, "the key {} has the scope {}, but this needs {}", found->name, name_of(found->scope),
                    name_of(route.scope));
    }
    return Principal{found->name, found->scope, found->limits};
}

}  // namespace torpor
