// The daemon itself: is it there, is it well, reload, shut down.
#include "base/json.hh"
#include "base/open_files.hh"
#include "base/text.hh"
#include "daemon/answers.hh"
#include "daemon/certificate.hh"
#include "daemon/api/handlers.hh"
#include "daemon/daemon.hh"
#include "gpu/engine.hh"

#include <httplib.h>
#include <openssl/crypto.h>
#include <simdjson.h>
#include <sqlite3.h>
#include <unistd.h>
#include <uv.h>

#include <filesystem>
#include <set>

namespace torpor::api {

void healthz(Call&, http::Response& response) {
    answer_json(response, 200, "{\"ok\":true}");
}

void readyz(Call& call, http::Response& response) {
    if (call.daemon.is_stopping) {
        return answer_error(response, {Kind::unavailable, "torpord is shutting down", {}});
    }
    answer_json(response, 200, "{\"ok\":true}");
}

void version(Call& call, http::Response& response) {
    JsonWriter json;
    json.begin_object()
        .member("version", TORPOR_VERSION)
        .member("pid", ::getpid())
        .member("started_at_ms", call.daemon.started_at_ms);
    json.key("components")
        .begin_object()
        .member("cpp-httplib", CPPHTTPLIB_VERSION)
        .member("openssl", OpenSSL_version(OPENSSL_VERSION_STRING))
        .member("libuv", uv_version_string())
        .member("simdjson", SIMDJSON_STRINGIFY(SIMDJSON_VERSION))
        .member("sqlite", sqlite3_libversion())
        .end_object()
        .end_object();
    answer_json(response, 200, json.take());
}

namespace {

class Checks {
  public:
    Checks() { json_.begin_object().key("checks").begin_array(); }
    void add(std::string_view name, bool ok, const std::string& message, const std::optional<gpu::CriuGrant>& remedy = {}) {
        json_.begin_object().member("name", name).member("ok", ok).member("message", message);
        if (remedy) json_.member("command", remedy->command).member("gives", remedy->gives);
        json_.end_object();
    }
    std::string take() { return json_.end_array().end_object().take(); }

  private:
    JsonWriter json_;
};

void check_folders(const Folders& folders, Checks& checks) {
    std::error_code code;
    const auto space = std::filesystem::space(folders.cache, code);
    constexpr uint64_t low_bytes = 2'000'000'000;
    const bool enough = !code && space.available > low_bytes;
    checks.add("folders", enough,
               fmt::format("configuration in {}, state in {}, snapshots in {} ({:.1f} GB free)", folders.config.string(),
                           folders.state.string(), folders.snapshots().string(),
                           static_cast<double>(space.available) / 1e9));
}

// llama-server, which the set-up fetches, and what else there are models of.
void check_engines(Daemon& daemon, Checks& checks) {
    std::set<std::string> names{"llama-server"};
    for (const gpu::Model& model : daemon.pool.models()) {
        if (model.engine != "custom") names.insert(model.engine);
    }
    std::lock_guard lock(daemon.config_mutex);
    for (const std::string& name : names) {
        const auto program = gpu::find_engine(name)->find({}, daemon.folders, daemon.config.programs);
        checks.add("engine:" + name, program.has_value(), program ? *program : program.error().text());
    }
}

void check_memory(const gpu::Pool& pool, Checks& checks) {
    const gpu::Pool::Memory memory = pool.memory();
    checks.add("memory", !memory.budget || memory.taken <= *memory.budget,
               fmt::format("workers have {} of {}{}", format_bytes(memory.taken), memory.budget ? format_bytes(*memory.budget) : "all there is",
                           memory.is_pressure_watched ? "" : "; the kernel does not say when the machine is short of it (no /proc/pressure)"));
}

void check_snapshots(gpu::Pool& pool, Checks& checks) {
    const auto use = pool.disk_use();
    std::string message = fmt::format("{} of {} in use ({})", format_bytes(use.used), format_bytes(use.budget),
                                      use.is_budget_said ? "[pool] disk in config.toml" : "so that enough of the disk stays free");
    const bool is_tight = use.free < use.needed_max;
    if (is_tight) {
        message += fmt::format("; the largest takes {}, but only {} of the disk are free: free some space there",
                               format_bytes(use.needed_max), format_bytes(use.free));
    }
    for (const auto& status : pool.statuses()) {
        if (!status.no_snapshot.empty()) message += fmt::format("; {} has none: {}", status.model.name, status.no_snapshot);
    }
    checks.add("snapshots", !is_tight, message);
}

}  // namespace

void doctor(Call& call, http::Response& response) {
    Daemon& daemon = call.daemon;
    Checks checks;
    check_folders(daemon.folders, checks);
    auto integrity = daemon.store.read(
        [](store::Connection& db) { return store::check_file(db, store::Depth::whole); });
    checks.add("database", integrity.has_value(), integrity ? "whole" : integrity.error().text());
    {
        std::lock_guard lock(daemon.config_mutex);
        checks.add("config", daemon.config_error.empty(),
                   daemon.config_error.empty() ? fmt::format("no mistakes; models: {}", daemon.config.models.size())
                                               : daemon.config_error);
    }
    check_engines(daemon, checks);
    const gpu::CriuTool& criu = daemon.pool.criu();
    checks.add("criu", criu.is_offered(),
               criu.is_offered() ? "idle workers are frozen with " + criu.program
                                 : criu.why_not + "; idle workers are stopped instead",
               criu.grant);
    check_memory(daemon.pool, checks);
    check_snapshots(daemon.pool, checks);
    checks.add("tcp", daemon.tcp_is_well, daemon.tcp_state);
    std::unique_lock lock(daemon.config_mutex);
    if (daemon.certificate) {
        const CertificateHealth health = health_of(*daemon.certificate, std::chrono::system_clock::now());
        checks.add("certificate", health.is_well, fmt::format("{} {}", daemon.config.http.certificate, health.text));
    }
    lock.unlock();
    const std::string lack = daemon.lack_of_open_files();
    checks.add("open files", lack.empty(), lack.empty() ? fmt::format("{} may be open at once", open_files_max()) : lack);
    answer_json(response, 200, checks.take());
}

void reload(Call& call, http::Response& response) {
    auto models = call.daemon.reload();
    if (!models) return answer_error(response, models.error());
    JsonWriter json;
    json.begin_object().member("ok", true).member("models", *models).end_object();
    answer_json(response, 200, json.take());
}

void shut_down(Call& call, http::Response& response) {
    answer_json(response, 200, "{\"ok\":true}");
    call.daemon.begin_stop();
}

}  // namespace torpor::api
