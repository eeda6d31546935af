// Whom sessions can ask.
#include "base/json.hh"
#include "daemon/answers.hh"
#include "daemon/api/handlers.hh"
#include "daemon/daemon.hh"
#include "daemon/llm/providers.hh"

namespace torpor::api {

void list_providers(Call& call, http::Response& response) {
    JsonWriter json;
    json.begin_object().key("providers").begin_array();
    for (const auto& provider : call.daemon.providers->list()) {
        json.begin_object().member("name", provider.name).member("wire", provider.wire).member("base_url", provider.base_url);
        json.member("has_key", provider.has_key).member("key_source", provider.key_source).key("models").begin_array();
        for (const std::string& model : provider.models) json.value(model);
        json.end_array().end_object();
    }
    answer_json(response, 200, json.end_array().end_object().take());
}

}  // namespace torpor::api
