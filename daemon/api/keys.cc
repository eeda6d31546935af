#include "base/json.hh"
#include "daemon/answers.hh"
#include "daemon/api/body.hh"
#include "daemon/api/handlers.hh"
#include "daemon/daemon.hh"

namespace torpor::api {

void list_keys(Call& call, http::Response& response) {
    JsonWriter json;
    json.begin_object().key("keys").begin_array();
    for (const store::Key& key : call.daemon.keys.list()) {
        json.begin_object()
            .member("id", key.id)
            .member("name", key.name)
            .member("scope", name_of(key.scope))
            .member("prefix", key.prefix)
            .member("created_at_ms", key.created_at_ms)
            .member("last_used_at_ms", key.last_used_at_ms)
            .member("requests_per_minute", key.limits->requests_per_minute)
            .member("concurrent", key.limits->concurrent);
        json.key("models").begin_array();
        for (const std::string& model : key.limits->models) json.value(model);
        json.end_array().end_object();
    }
    json.end_array().end_object();
    answer_json(response, 200, json.take());
}

void add_key(Call& call, http::Response& response) {
    auto body = Body::parse(call.body.text, {"name", "scope", "requests_per_minute", "concurrent", "models"});
    if (!body) return answer_error(response, body.error());
    std::string name, scope_text = "models";
    body->text("name", name);
    body->text("scope", scope_text);
    store::KeyLimits limits;
    body->count("requests_per_minute", limits.requests_per_minute);
    body->count("concurrent", limits.concurrent);
    body->texts("models", limits.models);
    if (body->error()) return answer_error(response, *body->error());
    auto scope = parse_scope(scope_text);
    if (!scope) return answer_error(response, scope.error());
    for (std::string& model : limits.models) {
        auto found = call.daemon.pool.find(model);
        if (!found) return answer_error(response, found.error());
        // An alias may go to another model one day; an adapter has its own name.
        if (gpu::find_adapter(*found, model) == nullptr) model = found->name;
    }
    auto made = call.daemon.keys.create(name, *scope, std::move(limits));
    if (!made) return answer_error(response, made.error());
    JsonWriter json;
    json.begin_object()
        .member("id", made->key.id)
        .member("name", made->key.name)
        .member("scope", name_of(made->key.scope))
        .member("key", made->plaintext)
        .end_object();
    answer_json(response, 201, json.take());
}

void remove_key(Call& call, http::Response& response) {
    auto removed = call.daemon.keys.remove(call.parameters[0]);
    if (!removed) return answer_error(response, removed.error());
    answer_json(response, 200, "{\"ok\":true}");
}

}  // namespace torpor::api
