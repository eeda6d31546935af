#include "daemon/dispatch.hh"

#include "base/limits.hh"
#include "daemon/access.hh"
#include "daemon/answers.hh"
#include "daemon/gateway/gateway.hh"
#include "daemon/routes.hh"

namespace torpor {

namespace {

// What admit() found out, for respond() on the same thread.
struct Admitted {
    const Route* route = nullptr;
    std::vector<std::string> parameters;
    Principal principal;
    std::shared_ptr<http::LongSlot> long_slot;
};
thread_local Admitted admitted;

void answer(Daemon& daemon, const http::Request& request, http::Response& response, const Error& error) {
    daemon.gateway.record_refusal(request.path, error);
    if (request.path.starts_with("/v1/")) return gateway::answer_error(request, response, error);
    answer_error(response, error);
}

Result<void> admit(Daemon& daemon, const http::Request& request) {
    admitted = {};
    RouteMatch match = match_route(routes(), request.method, request.path);
    if (match.route == nullptr) {
        // Strangers learn nothing about which paths there are.
        static constexpr Route nowhere{Method::get, "a path that is not there", Scope::models, Lasts::briefly, nullptr};
        auto access = check_access(request, *http::current_connection(), nowhere, daemon.keys, daemon.failed_keys);
        if (!access) return Failure(access.error());
        if (match.other_method) return fail(Kind::invalid, "{} is not for {}", request.path, request.method);
        return fail(Kind::not_found, "there is nothing at {}", request.path.substr(0, request_path_bytes_max));
    }
    auto access = check_access(request, *http::current_connection(), *match.route, daemon.keys, daemon.failed_keys);
    if (!access) return Failure(access.error());
    if (daemon.is_stopping) return fail(Kind::unavailable, "torpord is shutting down");
    admitted.route = match.route;
    admitted.parameters = std::move(match.parameters);
    admitted.principal = std::move(*access);
    if (match.route->lasts == Lasts::long_) {
        admitted.long_slot = daemon.server->take_long_slot();
        if (!admitted.long_slot) {
            return fail_limit(Kind::unavailable, "http_threads",
                              fmt::format("{} long requests run already; try again later", http_threads_max - http_threads_reserve));
        }
    }
    return {};
}

// Words for what the HTTP layer refuses by itself.
Error what_http_found(int status, const http::Limits& limits) {
    switch (status) {
        case 408: return {Kind::timeout, "the body did not come in time", {}, "body_time"};
        case 413: return {Kind::too_large, fmt::format("the body is larger than {} bytes", limits.body_bytes), {}, "body_bytes"};
        case 414: return {Kind::too_large, "the request's address is too long", {}};
        case 415: return {Kind::invalid, "bodies must come uncompressed (no Content-Encoding)", {}};
        case 503:
            return {Kind::unavailable,
                    fmt::format("bodies of {} bytes are under way already; try again in a moment", limits.bodies_in_flight_bytes), {}, "bodies_in_flight_bytes"};
        default: return {Kind::invalid, "the request is not well-formed HTTP", {}};
    }
}

}  // namespace

http::Hooks make_hooks(Daemon& daemon) {
    http::Hooks hooks;
    hooks.admit = [&daemon](const http::Request& request, http::Response& response) {
        auto passed = admit(daemon, request);
        if (passed) return false;
        answer(daemon, request, response, passed.error());
        return true;
    };
    hooks.respond = [&daemon](const http::Request& request, http::Body body, http::Response& response) {
        Admitted mine = std::exchange(admitted, {});
        Call call{daemon,         request, std::move(body), std::move(mine.parameters), std::move(mine.principal),
                  std::move(mine.long_slot)};
        mine.route->handler(call, response);
    };
    hooks.explain = [&daemon](const http::Request& request, http::Response& response) {
        const int status = response.status;
        answer(daemon, request, response, what_http_found(status, daemon.http_limits));
        response.status = status;
    };
    return hooks;
}

}  // namespace torpor
