#include "store/catalogue.hh"

namespace torpor::store {

namespace {

// All rows of a query without parameters, each made by `make`.
template <class Row>
Result<std::vector<Row>> collect(Connection& connection, std::string_view sql, Row (*make)(const Statement&)) {
    auto statement = connection.prepare(sql);
    if (!statement) return Failure(statement.error());
    std::vector<Row> rows;
    for (;;) {
        auto row = statement->step();
        if (!row) return Failure(row.error());
        if (!*row) return rows;
        rows.push_back(make(*statement));
    }
}

Snapshot make_snapshot(const Statement& row) {
    return {row.text(0), row.text(1), row.text(2), static_cast<uint64_t>(row.integer(3)), row.text(4), row.integer(5)};
}

Worker make_worker(const Statement& row) {
    return {row.text(0),    row.integer(1), static_cast<uint64_t>(row.integer(2)), row.text(3), row.integer(4),
            row.text(5), row.text(6),    row.integer(7)};
}

ModelSeen make_model_seen(const Statement& row) {
    return {row.text(0), row.integer(1), row.integer(2), static_cast<uint64_t>(row.integer(3)),
            static_cast<uint64_t>(row.integer(4)), static_cast<uint64_t>(row.integer(5)), row.integer(6), row.integer(7)};
}

}  // namespace

Result<void> put_snapshot(Connection& connection, const Snapshot& snapshot) {
    return connection.run(
        "INSERT OR REPLACE INTO snapshot (model, tier, path, bytes, fingerprint, created_at_ms) "
        "VALUES (?, ?, ?, ?, ?, ?)",
        snapshot.model, snapshot.tier, snapshot.path, snapshot.bytes, snapshot.fingerprint, snapshot.created_at_ms);
}

Result<std::vector<Snapshot>> all_snapshots(Connection& connection) {
    return collect<Snapshot>(
        connection, "SELECT model, tier, path, bytes, fingerprint, created_at_ms FROM snapshot ORDER BY model",
        make_snapshot);
}

Result<void> remove_snapshot(Connection& connection, std::string_view model) {
    return connection.run("DELETE FROM snapshot WHERE model = ?", model);
}

Result<void> put_worker(Connection& connection, const Worker& worker) {
    return connection.run(
        "INSERT OR REPLACE INTO worker (model, pid, start_time, socket, port, token, command, created_at_ms) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        worker.model, worker.pid, worker.start_time, worker.socket, worker.port, worker.token, worker.command,
        worker.created_at_ms);
}

Result<std::vector<Worker>> all_workers(Connection& connection) {
    return collect<Worker>(
        connection,
        "SELECT model, pid, start_time, socket, port, token, command, created_at_ms FROM worker ORDER BY model",
        make_worker);
}

Result<void> remove_worker(Connection& connection, std::string_view model) {
    return connection.run("DELETE FROM worker WHERE model = ?", model);
}

Result<void> note_used(Connection& connection, std::string_view name, int64_t at_ms) {
    return connection.run(
        "INSERT INTO model_seen (name, first_seen_at_ms, last_used_at_ms) VALUES (?1, ?2, ?2) "
        "ON CONFLICT (name) DO UPDATE SET last_used_at_ms = max(last_used_at_ms, excluded.last_used_at_ms)",
        name, at_ms);
}

Result<void> note_start(Connection& connection, std::string_view name, Start start, int64_t at_ms) {
    return connection.run(
        "INSERT INTO model_seen (name, first_seen_at_ms, cold_starts, thaws) VALUES (?, ?, ?, ?) "
        "ON CONFLICT (name) DO UPDATE SET cold_starts = cold_starts + excluded.cold_starts, "
        "thaws = thaws + excluded.thaws",
        name, at_ms, start == Start::cold ? 1 : 0, start == Start::thawed ? 1 : 0);
}

Result<void> note_learned(Connection& connection, std::string_view name, uint64_t memory_bytes, int64_t cold_ms, int64_t thaw_ms, int64_t at_ms) {
    return connection.run(
        "INSERT INTO model_seen (name, first_seen_at_ms, memory_bytes, cold_ms, thaw_ms) VALUES (?, ?, ?, ?, ?) "
        "ON CONFLICT (name) DO UPDATE SET memory_bytes = excluded.memory_bytes, cold_ms = excluded.cold_ms, "
        "thaw_ms = excluded.thaw_ms",
        name, at_ms, memory_bytes, cold_ms, thaw_ms);
}

Result<std::vector<ModelSeen>> all_models_seen(Connection& connection) {
    return collect<ModelSeen>(
        connection,
        "SELECT name, first_seen_at_ms, last_used_at_ms, cold_starts, thaws, memory_bytes, cold_ms, thaw_ms FROM model_seen ORDER BY name",
        make_model_seen);
}

}  // namespace torpor::store
