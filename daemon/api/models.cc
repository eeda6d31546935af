// The list of models: what there is, adding and removing.
#include "base/json.hh"
#include "base/text.hh"
#include "daemon/answers.hh"
#include "daemon/api/body.hh"
#include "daemon/api/handlers.hh"
#include "daemon/daemon.hh"
#include "gpu/limits.hh"

#include <unistd.h>

#include <algorithm>

namespace torpor::api {

std::string describe(const gpu::ModelStatus& status) {
    JsonWriter json;
    json.begin_object()
        .member("name", status.model.name)
        .member("engine", status.model.engine)
        .member("path", status.model.path);
    json.key("aliases").begin_array();
    for (const std::string& alias : status.model.aliases) json.value(alias);
    json.end_array().key("wires").begin_array();
    for (const gpu::Wire wire : gpu::wires_of(status.model)) json.value(gpu::name_of(wire));
    json.end_array().key("idle_ms");
    if (status.model.idle) {
        json.value(status.model.idle->count());
    } else {
        json.null();
    }
    json.member("state", gpu::name_of(status.state)).key("tier");
    if (status.is_frozen) {
        json.value("frozen");
    } else {
        json.null();
    }
    json.member("pid", status.pid)
        .member("memory_bytes", status.memory_bytes)
        .member("snapshot_bytes", status.snapshot_bytes)
        .member("no_snapshot", status.no_snapshot)
        .member("requests", status.requests)
        .member("waiting", status.waiting)
        .member("since_ms", status.since_ms)
        .member("last_error", status.last_error);
    json.key("starts").begin_object().member("cold", status.cold_starts).member("thawed", status.thaws).end_object();
    json.end_object();
    return json.take();
}

void list_models(Call& call, http::Response& response) {
    JsonWriter json;
    json.begin_object().key("models").begin_array();
    for (const gpu::ModelStatus& status : call.daemon.pool.statuses()) json.raw(describe(status));
    json.end_array();
    {
        std::lock_guard lock(call.daemon.config_mutex);
        json.member("config_error", call.daemon.config_error);
    }
    json.end_object();
    answer_json(response, 200, json.take());
}

void show_model(Call& call, http::Response& response) {
    auto status = call.daemon.pool.status(call.parameters[0]);
    if (!status) return answer_error(response, status.error());
    answer_json(response, 200, describe(*status));
}

namespace {

struct Addition {
    gpu::Model model;
    bool replace = false;
};

Result<Addition> read_addition(const std::string& text) {
    auto body = Body::parse(text, {"name", "engine", "path", "args", "env", "command", "ready", "wires", "aliases", "idle",
                                   "pinned", "snapshot", "replace"});
    if (!body) return Failure(body.error());
    Addition addition;
    gpu::Model& model = addition.model;
    std::string idle, snapshot;
    body->text("name", model.name);
    body->text("engine", model.engine);
    body->text("path", model.path);
    body->texts("args", model.args);
    body->texts("command", model.command);
    body->text("ready", model.ready);
    body->texts("wires", model.wires);
    body->texts("aliases", model.aliases);
    body->pairs("env", model.env);
    body->text("idle", idle);
    body->text("snapshot", snapshot);
    body->truth("pinned", model.pinned);
    body->truth("replace", addition.replace);
    if (body->error()) return Failure(*body->error());
    if (idle == "never") {
        model.idle.reset();
    } else if (!idle.empty()) {
        auto duration = parse_duration(idle);
        if (!duration) return Failure(duration.error());
        model.idle = *duration;
    }
    model.snapshot = snapshot != "off";
    if (auto checked = gpu::check_model(model); !checked) return Failure(checked.error());
    if (!model.path.empty() && ::access(model.path.c_str(), R_OK) != 0) {
        return fail_errno(Kind::invalid, fmt::format("the model file {} cannot be read", model.path));
    }
    return addition;
}

std::filesystem::path file_of(const Daemon& daemon, const std::string& model) {
    return daemon.folders.models() / (model + ".toml");
}

// Refuses a name or alias that another model has.
Result<void> check_free(const Daemon& daemon, const Addition& addition) {
    auto models = daemon.pool.models();
    const auto same = std::ranges::find(models, addition.model.name, &gpu::Model::name);
    if (same != models.end()) {
        if (!addition.replace) {
            return fail(Kind::conflict, "there is a model {} already; add --replace, or take another name", addition.model.name);
        }
        models.erase(same);
    } else if (!addition.replace && std::filesystem::exists(file_of(daemon, addition.model.name))) {
        return fail(Kind::conflict, "{} is there already, though it was not taken; torpor doctor says why. Mend it, or add --replace",
                    file_of(daemon, addition.model.name).string());
    }
    models.push_back(addition.model);
    if (models.size() > gpu::models_max) return fail(Kind::too_large, "more than {} models", gpu::models_max);
    return check_names(models);
}

// Reloads after a change of the files; a mistake in another one stands in the way, and is said.
Result<void> take_change(Daemon& daemon, const std::string& change) {
    auto reloaded = daemon.reload();
    if (reloaded) return {};
    Error error = reloaded.error();
    error.message = fmt::format("{}, but nothing is taken until this is mended: {}", change, error.message);
    return Failure(error);
}

}  // namespace

void add_model(Call& call, http::Response& response) {
    auto addition = read_addition(call.body.text);
    if (!addition) return answer_error(response, addition.error());
    if (auto free = check_free(call.daemon, *addition); !free) return answer_error(response, free.error());
    const auto file = file_of(call.daemon, addition->model.name);
    if (auto written = write_file_atomically(file, gpu::write_model(addition->model), 0600); !written) {
        return answer_error(response, written.error());
    }
    if (auto taken = take_change(call.daemon, file.string() + " is written"); !taken) return answer_error(response, taken.error());
    auto status = call.daemon.pool.status(addition->model.name);
    if (!status) return answer_error(response, status.error());
    answer_json(response, 201, describe(*status));
}

void remove_model(Call& call, http::Response& response) {
    auto model = call.daemon.pool.find(call.parameters[0]);
    const bool has_file = is_plain_name(call.parameters[0]) && std::filesystem::exists(file_of(call.daemon, call.parameters[0]));
    if (!model && !has_file) return answer_error(response, model.error());  // one whose file was not taken can go, too
    if (model && model->name != call.parameters[0]) {
        return answer_error(response, {Kind::invalid, fmt::format("{} is an alias of {}; remove that", call.parameters[0], model->name), {}});
    }
    const auto file = file_of(call.daemon, call.parameters[0]);
    std::error_code code;
    std::filesystem::remove(file, code);
    if (auto taken = take_change(call.daemon, file.string() + " is removed"); !taken) return answer_error(response, taken.error());
    answer_json(response, 200, "{\"ok\":true}");
}

}  // namespace torpor::api
