#include "daemon/access.hh"

#include "base/text.hh"
#include "daemon/tcp_address.hh"

#include <algorithm>

namespace torpor {

namespace {

// Without its port: "[::1]:80" gives "[::1]". Empty if it is not well-formed.
std::string_view name_in(std::string_view host) {
    if (!host.starts_with('[')) return host.substr(0, host.find(':'));
    const size_t end = host.find(']');
    if (end == std::string_view::npos) return {};
    const std::string_view after = host.substr(end + 1);
    return after.empty() || after.starts_with(':') ? host.substr(0, end + 1) : std::string_view();
}

bool is_listed(std::string_view name, const HostNames& hosts) {
    if (name == "127.0.0.1" || name == "localhost" || name == "[::1]") return true;
    const std::string number = number_of(name);
    const std::string known = number.empty() ? to_lower(name) : number;
    return known == "localhost" || known == "::1" || std::ranges::find(hosts.names, known) != hosts.names.end();
}

}  // namespace

bool is_our_host(std::string_view host, const HostNames& hosts) {
    const std::string_view name = name_in(host);
    return is_listed(name, hosts) || (hosts.every_number && !number_of(name).empty());
}

bool is_our_origin(std::string_view origin, const HostNames& hosts) {
    for (const std::string_view scheme : {"http://", "https://"}) {
        if (origin.starts_with(scheme)) return is_listed(name_in(origin.substr(scheme.size())), hosts);
    }
    return false;
}

Result<Principal> check_access(const http::Request& request, const http::Connection& connection, const Route& route,
                               const HostNames& hosts, store::Keys& keys, FailedKeys& failed_keys) {
    // A page of a foreign site may make a browser call us, and with a rebound name even read the answer.
    if (request.has_header("Origin") && !is_our_origin(request.get_header_value("Origin"), hosts)) {
        return fail(Kind::refused, "requests from other web sites are refused (Origin)");
    }
    if (connection.door == http::Door::socket) return Principal{"owner", Scope::owner, {}};
    if (!is_our_host(request.get_header_value("Host"), hosts)) {
        return fail(Kind::refused, "the Host header must name 127.0.0.1, localhost, or one of [http] hosts in config.toml");
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
