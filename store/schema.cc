#include "store/schema.hh"

#include "base/fd.hh"

#include <fcntl.h>
#include <unistd.h>

#include <array>

namespace torpor::store {

namespace {

// Released entries never change: files out there were made by them.
constexpr std::array<const char*, 6> versions{
    R"(
    CREATE TABLE meta (
        name  TEXT PRIMARY KEY,
        value TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;
    INSERT INTO meta (name, value) VALUES ('clean_exit', '1');

    -- AUTOINCREMENT: the id of a removed key is never given to another one.
    CREATE TABLE key (
        id              INTEGER PRIMARY KEY AUTOINCREMENT,
        name            TEXT NOT NULL UNIQUE,
        scope           TEXT NOT NULL,
        prefix          TEXT NOT NULL,
        hash            BLOB NOT NULL UNIQUE,
        created_at_ms   INTEGER NOT NULL,
        last_used_at_ms INTEGER NOT NULL DEFAULT 0
    ) STRICT;

    CREATE TABLE model_seen (
        name             TEXT PRIMARY KEY,
        first_seen_at_ms INTEGER NOT NULL,
        last_used_at_ms  INTEGER NOT NULL DEFAULT 0,
        cold_starts      INTEGER NOT NULL DEFAULT 0,
        thaws            INTEGER NOT NULL DEFAULT 0
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE snapshot (
        model         TEXT PRIMARY KEY,
        tier          TEXT NOT NULL,
        path          TEXT NOT NULL,
        bytes         INTEGER NOT NULL,
        fingerprint   TEXT NOT NULL,
        created_at_ms INTEGER NOT NULL
    ) STRICT;

    -- start_time: field 22 of /proc/PID/stat; with the pid it names one process for good.
    CREATE TABLE worker (
        model         TEXT PRIMARY KEY,
        pid           INTEGER NOT NULL,
        start_time    INTEGER NOT NULL,
        socket        TEXT NOT NULL,
        token         TEXT NOT NULL,
        engine        TEXT NOT NULL,
        created_at_ms INTEGER NOT NULL
    ) STRICT;
    )",

    // What a key may do beside its scope; 0 or empty: no limit of its own.
    R"(
    ALTER TABLE key ADD COLUMN requests_per_minute INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE key ADD COLUMN concurrent          INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE key ADD COLUMN models              TEXT    NOT NULL DEFAULT '';
    )",

    // What the worker was started with: one whose model has other arguments by now is not taken back.
    R"(
    ALTER TABLE worker DROP COLUMN engine;
    ALTER TABLE worker ADD COLUMN port    INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE worker ADD COLUMN command TEXT    NOT NULL DEFAULT '';
    )",

    // What earlier workers taught about the next; 0: nothing yet.
    R"(
    ALTER TABLE model_seen ADD COLUMN memory_bytes INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE model_seen ADD COLUMN cold_ms      INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE model_seen ADD COLUMN thaw_ms      INTEGER NOT NULL DEFAULT 0;
    )",

    // Sessions. `place` is number * 2^32 + seq, so that a session's events lie together and in order, in `event` as
    // in `found`; a session's title is found at seq 0.
    R"(
    CREATE TABLE session (
        number        INTEGER PRIMARY KEY AUTOINCREMENT,
        id            TEXT NOT NULL UNIQUE,
        folder        TEXT NOT NULL,
        title         TEXT NOT NULL,
        model         TEXT NOT NULL,
        mode          TEXT NOT NULL,
        parent        TEXT NOT NULL,
        state         INTEGER NOT NULL,
        is_archived   INTEGER NOT NULL,
        last_seq      INTEGER NOT NULL,
        created_at_ms INTEGER NOT NULL,
        updated_at_ms INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX session_by_use ON session (updated_at_ms);
    CREATE INDEX session_by_folder ON session (folder, updated_at_ms);
    CREATE INDEX session_under_way ON session (state) WHERE state <> 0;

    CREATE TABLE event (
        place INTEGER PRIMARY KEY,
        kind  TEXT NOT NULL,
        body  TEXT NOT NULL,
        at_ms INTEGER NOT NULL
    ) STRICT;
    CREATE VIRTUAL TABLE found USING fts5(text, tokenize = 'unicode61 remove_diacritics 2');

    CREATE TABLE content (
        number INTEGER PRIMARY KEY,
        hash   TEXT NOT NULL UNIQUE,
        bytes  BLOB NOT NULL
    ) STRICT;
    CREATE TABLE content_use (
        session INTEGER NOT NULL REFERENCES session,
        content INTEGER NOT NULL REFERENCES content,
        PRIMARY KEY (session, content)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX content_users ON content_use (content);

    CREATE TABLE permission (
        id            INTEGER PRIMARY KEY AUTOINCREMENT,
        folder        TEXT NOT NULL,
        rule          TEXT NOT NULL,
        decision      TEXT NOT NULL,
        by            TEXT NOT NULL,
        created_at_ms INTEGER NOT NULL,
        UNIQUE (folder, rule)
    ) STRICT;

    -- Stays when its session goes: what was paid was paid.
    CREATE TABLE usage (
        session            TEXT NOT NULL,
        provider           TEXT NOT NULL,
        model              TEXT NOT NULL,
        input_tokens       INTEGER NOT NULL,
        output_tokens      INTEGER NOT NULL,
        cache_read_tokens  INTEGER NOT NULL,
        cache_write_tokens INTEGER NOT NULL,
        cost               REAL,
        at_ms              INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX usage_by_time ON usage (at_ms);
    )",
    R"(
    -- Whose settings may loosen what is allowed: only as they were when somebody looked at them.
    CREATE TABLE trust (
        folder TEXT PRIMARY KEY,
        hash   TEXT NOT NULL,
        by     TEXT NOT NULL,
        at_ms  INTEGER NOT NULL
    ) STRICT;
    -- The session that began this one, by a call of the tool Agent; empty: people did.
    ALTER TABLE session ADD COLUMN caller TEXT NOT NULL DEFAULT '';
    CREATE INDEX session_by_caller ON session (caller) WHERE caller <> '';
    )",
};

struct Identity {
    int64_t application = 0;
    int64_t version = 0;
    int64_t tables = 0;

    bool is_new() const { return application == 0 && version == 0 && tables == 0; }
};

Result<Identity> read_identity(Connection& connection) {
    Identity identity;
    const std::pair<const char*, int64_t*> questions[] = {
        {"PRAGMA application_id", &identity.application},
        {"PRAGMA user_version", &identity.version},
        {"SELECT count(*) FROM sqlite_schema", &identity.tables},
    };
    for (const auto& [sql, place] : questions) {
        auto number = connection.query_integer(sql);
        if (!number) return Failure(number.error());
        *place = *number;
    }
    return identity;
}

Failure fail_newer(const std::filesystem::path& file, int64_t found, int64_t known) {
    const std::filesystem::path backup = backup_of(file, known);
    std::error_code ignored;
    const std::string way_back = std::filesystem::exists(backup, ignored)
        ? fmt::format(", or put {} in its place (what was written since is lost)", backup.filename().string())
        : ", or move it away to start with an empty one";
    return fail(Kind::conflict,
                "{} was written by a newer Torpor (schema {}, this one knows up to {}); run that newer Torpor{}",
                file.string(), found, known, way_back);
}

Result<void> check_identity(const Identity& identity, const std::filesystem::path& file, int64_t known) {
    if (identity.is_new()) return {};
    if (identity.application != application_id) {
        return fail(Kind::conflict,
                    "{} is another program's database, not Torpor's; move it away, or set XDG_STATE_HOME or "
                    "TORPOR_DIR to another folder",
                    file.string());
    }
    if (identity.version > known) return fail_newer(file, identity.version, known);
    return {};
}

// VACUUM INTO takes an empty file, so the mode is right before the first byte is in it. Written beside and
// renamed: a copy that a full disk cut short is never taken for a backup.
Result<void> back_up(Connection& writer, const std::filesystem::path& place) {
    const std::filesystem::path beside = place.string() + ".new";
    ::unlink(beside.c_str());
    if (!Fd(::open(beside.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600))) {
        return fail_errno(Kind::internal, fmt::format("cannot create {}", beside.string()));
    }
    auto done = writer.run("VACUUM INTO ?", beside.string());
    if (done) done = sync_path(beside);
    if (done && ::rename(beside.c_str(), place.c_str()) != 0) {
        done = fail_errno(Kind::internal, fmt::format("cannot rename {}", beside.string()));
    }
    if (!done) {
        ::unlink(beside.c_str());
        return done;
    }
    return sync_path(place.parent_path());
}

Result<void> apply(Connection& writer, Migrations list, int64_t version) {
    if (auto begun = writer.execute("BEGIN IMMEDIATE"); !begun) return begun;
    Result<void> done;
    for (size_t next = static_cast<size_t>(version); done && next < list.size(); ++next) {
        done = writer.execute(list[next]);
    }
    // Both live in the file's first page and are part of the transaction.
    if (done) {
        done = writer.execute(
            fmt::format("PRAGMA application_id={};PRAGMA user_version={};", application_id, list.size()).c_str());
    }
    if (done) done = writer.execute("COMMIT");
    if (!done && writer.is_in_transaction()) static_cast<void>(writer.execute("ROLLBACK"));
    return done;
}

Failure with_context(std::string context, Error error) {
    error.message = fmt::format("{}: {}", context, error.message);
    return Failure(std::move(error));
}

}  // namespace

Migrations migrations() {
    return versions;
}

std::filesystem::path backup_of(const std::filesystem::path& file, int64_t version) {
    return fmt::format("{}.backup-v{}", file.string(), version);
}

Result<void> migrate(Connection& writer, const std::filesystem::path& file, Migrations list) {
    const auto newest = static_cast<int64_t>(list.size());
    auto identity = read_identity(writer);
    if (!identity) return with_context(fmt::format("cannot read {}", file.string()), identity.error());
    if (auto ours = check_identity(*identity, file, newest); !ours) return ours;
    if (identity->version == newest) return {};

    if (!identity->is_new()) {
        const std::filesystem::path backup = backup_of(file, identity->version);
        if (auto copied = back_up(writer, backup); !copied) {
            return with_context(fmt::format("cannot copy {} to {} before its schema changes", file.string(),
                                            backup.filename().string()),
                                copied.error());
        }
    }
    if (auto done = apply(writer, list, identity->version); !done) {
        return with_context(fmt::format("cannot bring {} from schema {} to {}; it is as it was", file.string(),
                                        identity->version, newest),
                            done.error());
    }
    return {};
}

}  // namespace torpor::store
