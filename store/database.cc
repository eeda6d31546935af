#include "store/database.hh"

#include "store/limits.hh"

#include <sqlite3.h>

namespace torpor::store {

namespace {

struct Meaning {
    Kind kind;
    std::string_view message;
};

Meaning meaning_of(int extended_code) {
    if (extended_code == SQLITE_CONSTRAINT_UNIQUE || extended_code == SQLITE_CONSTRAINT_PRIMARYKEY) {
        return {Kind::conflict, "it exists already"};
    }
    switch (extended_code & 0xff) {
        case SQLITE_BUSY:
        case SQLITE_LOCKED:
            return {Kind::busy, "another program keeps the database locked; end it and try again"};
        case SQLITE_INTERRUPT: return {Kind::cancelled, "the database was asked to stop"};
        case SQLITE_FULL: return {Kind::internal, "the disk is full; free some space and try again"};
        case SQLITE_NOTADB:
        case SQLITE_CORRUPT:
            return {Kind::internal,
                    "the database is damaged; stop torpord and put a torpor.db.backup-v* in its place, or move "
                    "torpor.db away to start with an empty one"};
        case SQLITE_CANTOPEN:
        case SQLITE_PERM:
        case SQLITE_READONLY:
            return {Kind::internal, "the database cannot be opened for this; look at its owner and permissions"};
        case SQLITE_IOERR: return {Kind::internal, "the disk under the database fails"};
        default: return {Kind::internal, "the database refused an operation"};
    }
}

Failure fail_sqlite(sqlite3* handle) {
    const int code = sqlite3_extended_errcode(handle);
    const Meaning meaning = meaning_of(code);
    return Failure(Error{meaning.kind, std::string(meaning.message),
                         fmt::format("{} (SQLite error {})", sqlite3_errmsg(handle), code)});
}

constexpr std::string_view pragmas_of_all = "PRAGMA mmap_size={};PRAGMA cache_size=-{};PRAGMA temp_store=MEMORY;";

// FULL: what was acknowledged survives a power cut; group commit pays for it.
constexpr std::string_view pragmas_of_writer =
    "PRAGMA synchronous=FULL;PRAGMA journal_size_limit={};PRAGMA wal_autocheckpoint={};";

Result<void> configure(sqlite3* handle, Connection& connection, Connection::Access access) {
    sqlite3_busy_timeout(handle, static_cast<int>(lock_wait_max.count()));
    const std::pair<int, int> switches[] = {
        {SQLITE_DBCONFIG_DQS_DML, 0},      {SQLITE_DBCONFIG_DQS_DDL, 0},   {SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0},
        {SQLITE_DBCONFIG_ENABLE_FKEY, 1}, {SQLITE_DBCONFIG_DEFENSIVE, 1},
    };
    for (const auto& [which, value] : switches) {
        if (sqlite3_db_config(handle, which, value, nullptr) != SQLITE_OK) return fail_sqlite(handle);
    }
    std::string sql = fmt::format(pragmas_of_all, 0, cached_kib_max);
    sql += access == Connection::Access::read_only
               ? "PRAGMA query_only=ON;"
               : fmt::format(pragmas_of_writer, log_bytes_kept, log_pages_before_checkpoint);
    return connection.execute(sql.c_str());
}

}  // namespace

StatementCache::~StatementCache() {
    for (sqlite3_stmt* const statement : idle_) sqlite3_finalize(statement);
}

sqlite3_stmt* StatementCache::take(std::string_view sql) {
    for (size_t i = idle_.size(); i-- > 0;) {
        sqlite3_stmt* const statement = idle_[i];
        if (sql != sqlite3_sql(statement)) continue;
        idle_.erase(idle_.begin() + static_cast<ptrdiff_t>(i));
        return statement;
    }
    return nullptr;
}

void StatementCache::give_back(sqlite3_stmt* statement) {
    sqlite3_reset(statement);
    sqlite3_clear_bindings(statement);
    idle_.push_back(statement);
    if (idle_.size() <= statements_kept_max) return;
    sqlite3_finalize(idle_.front());
    idle_.erase(idle_.begin());
}

Statement::~Statement() {
    if (handle_ != nullptr) cache_->give_back(handle_);
}

Result<bool> Statement::step() {
    const int code = sqlite3_step(handle_);
    if (code == SQLITE_ROW) return true;
    if (code == SQLITE_DONE) return false;
    return fail_sqlite(sqlite3_db_handle(handle_));
}

int64_t Statement::integer(int column) const {
    return sqlite3_column_int64(handle_, column);
}

std::string Statement::text(int column) const {
    const auto* bytes = reinterpret_cast<const char*>(sqlite3_column_text(handle_, column));
    return bytes ? std::string(bytes, static_cast<size_t>(sqlite3_column_bytes(handle_, column))) : std::string();
}

std::string Statement::blob(int column) const {
    const auto* bytes = static_cast<const char*>(sqlite3_column_blob(handle_, column));
    return bytes ? std::string(bytes, static_cast<size_t>(sqlite3_column_bytes(handle_, column))) : std::string();
}

double Statement::real(int column) const {
    return sqlite3_column_double(handle_, column);
}

Result<void> Statement::bind_null(int index) {
    if (sqlite3_bind_null(handle_, index) == SQLITE_OK) return {};
    return fail_sqlite(sqlite3_db_handle(handle_));
}

Result<void> Statement::bind_at(int index, double value) {
    if (sqlite3_bind_double(handle_, index, value) == SQLITE_OK) return {};
    return fail_sqlite(sqlite3_db_handle(handle_));
}

Result<void> Statement::bind_integer(int index, int64_t value) {
    if (sqlite3_bind_int64(handle_, index, value) == SQLITE_OK) return {};
    return fail_sqlite(sqlite3_db_handle(handle_));
}

// A null pointer would bind NULL, hence the empty literals.
Result<void> Statement::bind_at(int index, std::string_view text) {
    const char* bytes = text.empty() ? "" : text.data();
    if (sqlite3_bind_text64(handle_, index, bytes, text.size(), SQLITE_TRANSIENT, SQLITE_UTF8) == SQLITE_OK) {
        return {};
    }
    return fail_sqlite(sqlite3_db_handle(handle_));
}

Result<void> Statement::bind_at(int index, Blob blob) {
    const char* bytes = blob.bytes.empty() ? "" : blob.bytes.data();
    if (sqlite3_bind_blob64(handle_, index, bytes, blob.bytes.size(), SQLITE_TRANSIENT) == SQLITE_OK) return {};
    return fail_sqlite(sqlite3_db_handle(handle_));
}

Result<Connection> Connection::open(const std::filesystem::path& file, Access access) {
    // NOMUTEX: one thread at a time by contract, so SQLite need not lock each call.
    const int flags = SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_PRIVATECACHE | SQLITE_OPEN_EXRESCODE |
                      (access == Access::read_only ? SQLITE_OPEN_READONLY : SQLITE_OPEN_READWRITE);
    sqlite3* handle = nullptr;
    const int code = sqlite3_open_v2(file.c_str(), &handle, flags, nullptr);
    if (handle == nullptr) return fail(Kind::internal, "there is no memory for a database connection");
    Connection connection(handle);
    Result<void> ready;
    if (code == SQLITE_OK) {
        ready = configure(handle, connection, access);
    } else {
        ready = fail_sqlite(handle);
    }
    if (!ready) {
        Error error = ready.error();
        error.message = fmt::format("{}: {}", file.string(), error.message);
        return Failure(std::move(error));
    }
    return connection;
}

Connection::~Connection() {
    cache_.reset();
    // Not close_v2: a forgotten statement would keep the file open behind our back, past the folder's lock.
    sqlite3_close(handle_);
}

Result<void> Connection::execute(const char* sql) {
    if (sqlite3_exec(handle_, sql, nullptr, nullptr, nullptr) == SQLITE_OK) return {};
    return fail_sqlite(handle_);
}

Result<Statement> Connection::prepare(std::string_view sql) {
    if (sqlite3_stmt* const kept = cache_->take(sql)) return Statement(kept, *cache_);
    sqlite3_stmt* statement = nullptr;
    const int code = sqlite3_prepare_v3(handle_, sql.data(), static_cast<int>(sql.size()), SQLITE_PREPARE_PERSISTENT, &statement, nullptr);
    if (code != SQLITE_OK) return fail_sqlite(handle_);
    if (statement == nullptr) return fail(Kind::internal, "an empty database statement");
    return Statement(statement, *cache_);
}

Result<int64_t> Connection::query_integer(std::string_view sql) {
    auto statement = prepare(sql);
    if (!statement) return Failure(statement.error());
    auto row = statement->step();
    if (!row) return Failure(row.error());
    if (!*row) return fail(Kind::not_found, "the database has no such row");
    return statement->integer(0);
}

Result<void> Connection::use_write_ahead_log() {
    auto statement = prepare("PRAGMA journal_mode=WAL");
    if (!statement) return Failure(statement.error());
    auto row = statement->step();
    if (!row) return Failure(row.error());
    // SQLite answers with the mode that it has, and gives no error when it could not change it.
    if (statement->text(0) != "wal") {
        return fail(Kind::internal, "the filesystem cannot hold a write-ahead log (shared memory is missing)");
    }
    return {};
}

Result<bool> Connection::truncate_log() {
    sqlite3_busy_timeout(handle_, 0);
    const int code = sqlite3_wal_checkpoint_v2(handle_, nullptr, SQLITE_CHECKPOINT_TRUNCATE, nullptr, nullptr);
    sqlite3_busy_timeout(handle_, static_cast<int>(lock_wait_max.count()));
    if (code == SQLITE_OK) return true;
    if ((code & 0xff) == SQLITE_BUSY || (code & 0xff) == SQLITE_LOCKED) return false;
    return fail_sqlite(handle_);
}

void Connection::stop_when(const std::atomic<bool>& flag) {
    const auto look = [](void* context) { return static_cast<const std::atomic<bool>*>(context)->load() ? 1 : 0; };
    sqlite3_progress_handler(handle_, progress_steps, look, const_cast<std::atomic<bool>*>(&flag));
}

bool Connection::is_in_transaction() const {
    return sqlite3_get_autocommit(handle_) == 0;
}

int64_t Connection::last_insert_id() const {
    return sqlite3_last_insert_rowid(handle_);
}

int64_t Connection::changes() const {
    return sqlite3_changes64(handle_);
}

}  // namespace torpor::store
