#include "daemon/catalogue.hh"

#include "base/log.hh"
#include "store/catalogue.hh"

namespace torpor {

std::vector<gpu::Snapshot> StoreCatalogue::snapshots() {
    std::vector<gpu::Snapshot> all;
    auto rows = store_.read([](store::Connection& db) { return store::all_snapshots(db); });
    if (!rows) log::error("cannot read the list of snapshots: {}", rows.error().text());
    if (!rows) return all;
    for (store::Snapshot& row : *rows) {
        all.push_back({row.model, row.tier, row.path, row.bytes, std::move(row.fingerprint), row.created_at_ms});
    }
    return all;
}

void StoreCatalogue::put(const gpu::Snapshot& snapshot) {
    store_.post([row = store::Snapshot{snapshot.model, snapshot.tier, snapshot.path.string(), snapshot.bytes,
                                       snapshot.fingerprint, snapshot.created_at_ms}](store::Connection& db) {
        return store::put_snapshot(db, row);
    });
}

void StoreCatalogue::remove(const std::string& model) {
    store_.post([model](store::Connection& db) { return store::remove_snapshot(db, model); });
}

void StoreCatalogue::note_start(const std::string& model, bool thawed) {
    store_.post([model, thawed](store::Connection& db) {
        const int64_t now = store::now_ms();
        auto noted = store::note_start(db, model, thawed ? store::Start::thawed : store::Start::cold, now);
        return noted ? store::note_used(db, model, now) : noted;
    });
}

std::map<std::string, gpu::Learned> StoreCatalogue::learned() {
    std::map<std::string, gpu::Learned> all;
    auto rows = store_.read([](store::Connection& db) { return store::all_models_seen(db); });
    if (!rows) log::error("cannot read what was learned of models: {}", rows.error().text());
    if (!rows) return all;
    for (const store::ModelSeen& row : *rows) all[row.name] = {row.memory_bytes, row.cold_ms, row.thaw_ms};
    return all;
}

void StoreCatalogue::put_learned(const std::string& model, const gpu::Learned& learned) {
    store_.post([model, learned](store::Connection& db) {
        return store::note_learned(db, model, learned.memory_bytes, learned.cold_ms, learned.thaw_ms, store::now_ms());
    });
}

std::vector<gpu::Catalogue::History> StoreCatalogue::histories() {
    std::vector<History> all;
    auto rows = store_.read([](store::Connection& db) { return store::all_models_seen(db); });
    if (!rows) log::error("cannot read how often models were started: {}", rows.error().text());
    if (!rows) return all;
    for (const store::ModelSeen& row : *rows) {
        all.push_back({row.name, row.cold_starts + row.thaws, row.first_seen_at_ms, row.last_used_at_ms});
    }
    return all;
}

std::vector<gpu::Catalogue::Running> StoreCatalogue::running() {
    std::vector<Running> all;
    auto rows = store_.read([](store::Connection& db) { return store::all_workers(db); });
    if (!rows) log::error("cannot read the list of workers: {}", rows.error().text());
    if (!rows) return all;
    for (const store::Worker& row : *rows) {
        all.push_back({row.model, static_cast<pid_t>(row.pid), row.start_time, row.token,
                       {row.socket, static_cast<int>(row.port)}, row.command});
    }
    return all;
}

void StoreCatalogue::put_running(const Running& running) {
    store::Worker row;
    row.model = running.model;
    row.pid = running.pid;
    row.start_time = running.start_time;
    row.socket = running.endpoint.socket;
    row.port = running.endpoint.port;
    row.token = running.token;
    row.command = running.command;
    row.created_at_ms = store::now_ms();
    store_.post([row](store::Connection& db) { return store::put_worker(db, row); });
}

void StoreCatalogue::remove_running(const std::string& model) {
    store_.post([model](store::Connection& db) { return store::remove_worker(db, model); });
}

}  // namespace torpor
