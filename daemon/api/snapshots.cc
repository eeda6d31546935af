#include "base/json.hh"
#include "daemon/answers.hh"
#include "daemon/api/handlers.hh"
#include "daemon/daemon.hh"

namespace torpor::api {

namespace {

void write_snapshot(JsonWriter& json, const gpu::Pool::SnapshotStatus& status) {
    json.begin_object()
        .member("model", status.snapshot.model)
        .member("tier", status.snapshot.tier)
        .member("bytes", status.snapshot.bytes)
        .member("created_at_ms", status.snapshot.created_at_ms)
        .member("valid", status.why_void.empty())
        .member("reason", status.why_void)
        .member("with_state", gpu::is_with_state(status.snapshot))
        .member("path", status.snapshot.path.string())
        .end_object();
}

}  // namespace

void list_snapshots(Call& call, http::Response& response) {
    JsonWriter json;
    json.begin_object().key("snapshots").begin_array();
    for (const auto& status : call.daemon.pool.snapshots()) write_snapshot(json, status);
    const auto use = call.daemon.pool.disk_use();
    json.end_array().member("used_bytes", use.used).member("budget_bytes", use.budget).key("without").begin_array();
    for (const auto& status : call.daemon.pool.statuses()) {
        if (status.no_snapshot.empty()) continue;
        json.begin_object().member("model", status.model.name).member("reason", status.no_snapshot).end_object();
    }
    json.end_array().end_object();
    answer_json(response, 200, json.take());
}

void verify_snapshot(Call& call, http::Response& response) {
    auto status = call.daemon.pool.verify_snapshot(call.parameters[0]);
    if (!status) return answer_error(response, status.error());
    JsonWriter json;
    write_snapshot(json, *status);
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
