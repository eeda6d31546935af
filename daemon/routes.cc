#include "daemon/routes.hh"

#include "base/limits.hh"
#include "daemon/api/handlers.hh"
#include "daemon/gateway/gateway.hh"

namespace torpor {

namespace {

constexpr std::array table{
    Route{Method::get, "/healthz", Scope::open, Lasts::briefly, api::healthz},
    Route{Method::get, "/readyz", Scope::open, Lasts::briefly, api::readyz},

    Route{Method::post, "/v1/chat/completions", Scope::models, Lasts::briefly, gateway::forward},
    Route{Method::post, "/v1/completions", Scope::models, Lasts::briefly, gateway::forward},
    Route{Method::post, "/v1/responses", Scope::models, Lasts::briefly, gateway::forward},
    Route{Method::post, "/v1/embeddings", Scope::models, Lasts::briefly, gateway::forward},
    Route{Method::post, "/v1/messages", Scope::models, Lasts::briefly, gateway::forward},
    Route{Method::post, "/v1/messages/count_tokens", Scope::models, Lasts::briefly, gateway::forward},
    Route{Method::get, "/v1/models", Scope::models, Lasts::briefly, gateway::list_models},
    Route{Method::get, "/v1/models/{id}", Scope::models, Lasts::briefly, gateway::show_model},

    Route{Method::get, "/metrics", Scope::admin, Lasts::briefly, gateway::show_metrics},
    Route{Method::get, "/api/requests", Scope::admin, Lasts::long_, api::show_requests},
    Route{Method::get, "/api/version", Scope::models, Lasts::briefly, api::version},
    Route{Method::get, "/api/doctor", Scope::admin, Lasts::briefly, api::doctor},
    Route{Method::get, "/api/models", Scope::admin, Lasts::briefly, api::list_models},
    Route{Method::post, "/api/models", Scope::owner, Lasts::briefly, api::add_model},
    Route{Method::post, "/api/deploy", Scope::owner, Lasts::long_, api::deploy},
    Route{Method::get, "/api/models/{name}", Scope::admin, Lasts::briefly, api::show_model},
    Route{Method::remove, "/api/models/{name}", Scope::owner, Lasts::briefly, api::remove_model},
    Route{Method::post, "/api/models/{name}/suspend", Scope::admin, Lasts::long_, api::suspend_model},
    Route{Method::post, "/api/models/{name}/resume", Scope::admin, Lasts::long_, api::resume_model},
    Route{Method::post, "/api/models/{name}/stop", Scope::admin, Lasts::long_, api::stop_model},
    Route{Method::get, "/api/models/{name}/logs", Scope::admin, Lasts::long_, api::show_log},
    Route{Method::get, "/api/snapshots", Scope::admin, Lasts::briefly, api::list_snapshots},
    Route{Method::post, "/api/snapshots/{model}/verify", Scope::admin, Lasts::long_, api::verify_snapshot},
    Route{Method::remove, "/api/snapshots/{model}", Scope::admin, Lasts::briefly, api::remove_snapshot},
    Route{Method::get, "/api/providers", Scope::sessions, Lasts::briefly, api::list_providers},
    Route{Method::get, "/api/sessions", Scope::sessions, Lasts::briefly, api::list_sessions},
    Route{Method::post, "/api/sessions", Scope::sessions, Lasts::briefly, api::create_session},
    Route{Method::post, "/api/sessions/import", Scope::sessions, Lasts::briefly, api::import_session},
    Route{Method::get, "/api/sessions/{id}", Scope::sessions, Lasts::briefly, api::show_session},
    Route{Method::remove, "/api/sessions/{id}", Scope::sessions, Lasts::briefly, api::remove_session},
    Route{Method::post, "/api/sessions/{id}/set", Scope::sessions, Lasts::briefly, api::set_session},
    Route{Method::post, "/api/sessions/{id}/fork", Scope::sessions, Lasts::briefly, api::fork_session},
    Route{Method::get, "/api/sessions/{id}/export", Scope::sessions, Lasts::long_, api::export_session},
    Route{Method::get, "/api/sessions/{id}/events", Scope::sessions, Lasts::briefly, api::follow_session},
    Route{Method::get, "/api/sessions/{id}/content/{hash}", Scope::sessions, Lasts::briefly, api::show_content},
    Route{Method::post, "/api/sessions/{id}/prompt", Scope::sessions, Lasts::briefly, api::add_prompt},
    Route{Method::post, "/api/sessions/{id}/withdraw", Scope::sessions, Lasts::briefly, api::withdraw_prompt},
    Route{Method::post, "/api/sessions/{id}/steer", Scope::sessions, Lasts::briefly, api::steer_turn},
    Route{Method::post, "/api/sessions/{id}/answer", Scope::sessions, Lasts::briefly, api::answer_question},
    Route{Method::post, "/api/sessions/{id}/interrupt", Scope::sessions, Lasts::briefly, api::interrupt_turn},
    Route{Method::post, "/api/sessions/{id}/retry", Scope::sessions, Lasts::briefly, api::retry_turn},
    Route{Method::post, "/api/sessions/{id}/environment", Scope::sessions, Lasts::briefly, api::set_environment},
    Route{Method::get, "/api/permissions", Scope::sessions, Lasts::briefly, api::list_permissions},
    Route{Method::post, "/api/permissions", Scope::owner, Lasts::briefly, api::add_permission},
    Route{Method::remove, "/api/permissions/{id}", Scope::owner, Lasts::briefly, api::remove_permission},
    Route{Method::post, "/api/trust", Scope::owner, Lasts::briefly, api::trust_folder},
    Route{Method::remove, "/api/trust", Scope::owner, Lasts::briefly, api::distrust_folder},
    Route{Method::get, "/api/keys", Scope::admin, Lasts::briefly, api::list_keys},
    Route{Method::post, "/api/keys", Scope::owner, Lasts::briefly, api::add_key},
    Route{Method::remove, "/api/keys/{name}", Scope::owner, Lasts::briefly, api::remove_key},
    Route{Method::post, "/api/reload", Scope::owner, Lasts::briefly, api::reload},
    Route{Method::post, "/api/shutdown", Scope::owner, Lasts::briefly, api::shut_down},
};

std::string_view name_of(Method method) {
    switch (method) {
        case Method::get: return "GET";
        case Method::post: return "POST";
        case Method::remove: return "DELETE";
    }
    return "";
}

// Takes the first segment off: "/a/b" gives "a" and leaves "/b".
std::string_view next_segment(std::string_view& path) {
    path.remove_prefix(1);
    const size_t end = path.find('/');
    const std::string_view segment = path.substr(0, end);
    path = end == std::string_view::npos ? std::string_view() : path.substr(end);
    return segment;
}

bool matches(std::string_view pattern, std::string_view path, std::vector<std::string>& parameters) {
    parameters.clear();
    while (!pattern.empty() && !path.empty()) {
        const std::string_view wanted = next_segment(pattern);
        const std::string_view found = next_segment(path);
        if (wanted.starts_with('{')) {
            if (found.empty()) return false;
            parameters.emplace_back(found);
        } else if (wanted != found) {
            return false;
        }
    }
    return pattern.empty() && path.empty();
}

}  // namespace

std::span<const Route> routes() {
    return table;
}

RouteMatch match_route(std::span<const Route> table, std::string_view method, std::string_view path) {
    RouteMatch found;
    if (path.size() > request_path_bytes_max || !path.starts_with('/')) return found;
    for (const Route& route : table) {
        std::vector<std::string> parameters;
        if (!matches(route.pattern, path, parameters)) continue;
        const bool is_head = method == "HEAD" && route.method == Method::get;
        if (name_of(route.method) != method && !is_head) {
            if (!found.allowed.empty()) found.allowed += ", ";
            found.allowed += route.method == Method::get ? "GET, HEAD" : name_of(route.method);
            continue;
        }
        found.route = &route;
        found.parameters = std::move(parameters);
        found.allowed.clear();
        return found;
    }
    return found;
}

}  // namespace torpor
