// The list of models: what there is, adding and removing.
#include "base/json.hh"
#include "base/text.hh"
#include "daemon/answers.hh"
#include "daemon/api/body.hh"
#include "daemon/api/handlers.hh"
#include "daemon/daemon.hh"
#include "gpu/limits.hh"

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
    json.end_array().key("adapters").begin_array();
    for (const gpu::Adapter& adapter : status.model.adapters) {
        json.begin_object().member("name", adapter.name).member("path", adapter.path).member("scale", adapter.scale).end_object();
    }
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
        .member("reserved_bytes", status.reserved_bytes)
        .member("waits_for_memory", status.waits_for_memory)
        .member("snapshot_bytes", status.snapshot_bytes)
        .member("prompt_state_bytes", status.prompt_bytes)
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
                                   "pinned", "snapshot", "memory", "adapter", "replace"});
    if (!body) return Failure(body.error());
    Addition addition;
    gpu::Model& model = addition.model;
    std::string idle, snapshot, memory;
    body->text("name", model.name);
    body->text("engine", model.engine);
    body->text("path", model.path);
    body->texts("args", model.args);
    body->texts("command", model.command);
    body->text("ready", model.ready);
    body->texts("wires", model.wires);
    body->texts("aliases", model.aliases);
    body->pairs("env", model.env);
    body->objects("adapter", {"path", "scale"}, [&model](const std::string& name, Body& keys) {
        gpu::Adapter adapter{name, {}};
        keys.text("path", adapter.path);
        keys.number("scale", adapter.scale);
        model.adapters.push_back(std::move(adapter));
    });
    std::ranges::sort(model.adapters, {}, &gpu::Adapter::name);
    body->text("idle", idle);
    body->text("snapshot", snapshot);
    body->text("memory", memory);
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
    if (!memory.empty()) {
        auto bytes = parse_bytes(memory);
        if (!bytes) return Failure(bytes.error());
        model.memory = *bytes;
    }
    if (auto checked = gpu::check_model(model); !checked) return Failure(checked.error());
    if (auto checked = gpu::check_files(model); !checked) return Failure(checked.error());
    return addition;
}

}  // namespace

std::filesystem::path file_of(const Daemon& daemon, const std::string& model) {
    return daemon.folders.models() / (model + ".toml");
}

Result<void> check_free(const Daemon& daemon, const gpu::Model& model) {
    auto models = daemon.pool.models();
    std::erase_if(models, [&model](const gpu::Model& other) { return other.name == model.name; });
    models.push_back(model);
    if (models.size() > gpu::models_max) return fail(Kind::too_large, "more than {} models", gpu::models_max);
    return check_names(models);
}

// A mistake in another file stands in the way, and is said.
Result<void> take_change(Daemon& daemon, const std::string& change) {
    auto reloaded = daemon.reload();
    if (reloaded) return {};
    Error error = reloaded.error();
    error.message = fmt::format("{}, but nothing is taken until this is mended: {}", change, error.message);
    return Failure(error);
}

namespace {

// Refuses a name that another model has, unless it is to be replaced.
Result<void> check_replaced(const Daemon& daemon, const Addition& addition) {
    const std::string& name = addition.model.name;
    if (addition.replace) return {};
    const auto model = daemon.pool.find(name);
    if (model && model->name == name) {
        return fail(Kind::conflict, "there is a model {} already; add --replace, or take another name", name);
    }
    if (std::filesystem::exists(file_of(daemon, name))) {
        return fail(Kind::conflict, "{} is there already, though it was not taken; torpor doctor says why. Mend it, or add --replace",
                    file_of(daemon, name).string());
    }
    return {};
}

}  // namespace

void add_model(Call& call, http::Response& response) {
    auto addition = read_addition(call.body.text);
    if (!addition) return answer_error(response, addition.error());
    if (auto new_one = check_replaced(call.daemon, *addition); !new_one) return answer_error(response, new_one.error());
    if (auto free = check_free(call.daemon, addition->model); !free) return answer_error(response, free.error());
    if (auto fits = call.daemon.pool.check_fits(addition->model); !fits) return answer_error(response, fits.error());
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
        return answer_error(response, {Kind::invalid, fmt::format("{} is another name of {}; remove that", call.parameters[0], model->name), {}});
    }
    const auto file = file_of(call.daemon, call.parameters[0]);
    std::error_code code;
    std::filesystem::remove(file, code);
    if (auto taken = take_change(call.daemon, file.string() + " is removed"); !taken) return answer_error(response, taken.error());
    answer_json(response, 200, "{\"ok\":true}");
}

}  // namespace torpor::api
