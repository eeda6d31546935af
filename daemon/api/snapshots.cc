#include "base/json.hh"
#include "daemon/answers.hh"
#include "daemon/api/handlers.hh"
#include "daemon/daemon.hh"

namespace torpor::api {

void list_snapshots(Call& call, http::Response& response) {
    JsonWriter json;
    json.begin_object().key("snapshots").begin_array();
    for (const auto& [snapshot, why_void] : call.daemon.pool.snapshots()) {
        json.begin_object()
            .member("model", snapshot.model)
            .member("tier", snapshot.tier)
            .member("bytes", snapshot.bytes)
            .member("created_at_ms", snapshot.created_at_ms)
            .member("valid", why_void.empty())
            .member("reason", why_void)
            .member("path", snapshot.path.string())
            .end_object();
    }
    json.end_array().end_object();
    answer_json(response, 200, json.take());
}

void remove_snapshot(Call& call, http::Response& response) {
    auto bytes = call.daemon.pool.remove_snapshot(call.parameters[0]);
    if (!bytes) return answer_error(response, bytes.error());
    JsonWriter json;
    json.begin_object().member("ok", true).member("bytes", *bytes).end_object();
    answer_json(response, 200, json.take());
}

}  // namespace torpor::api
