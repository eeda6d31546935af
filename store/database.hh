// A thin layer over SQLite: a connection and a statement that clean up after themselves, errors as Result.
//
// Errors: `conflict` when a unique value exists already, `busy` when another program holds the file locked
// for longer than lock_wait_max, `cancelled` when the stop flag was raised, else `internal`. The message is
// for people; the cause is SQLite's own text with its extended code. Values are bound, so neither holds one.
#pragma once

#include "base/error.hh"

#include <atomic>
#include <concepts>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

struct sqlite3;
struct sqlite3_stmt;

namespace torpor::store {

// Bytes to bind as a BLOB; a plain string is bound as TEXT.
struct Blob {
    std::string_view bytes;
};

// The statements of one connection that nobody uses now, by their text: preparing one takes longer than running most of them.
class StatementCache {
  public:
    StatementCache() = default;
    StatementCache(const StatementCache&) = delete;
    StatementCache& operator=(const StatementCache&) = delete;
    ~StatementCache();

    // Nothing if there is none of this text.
    sqlite3_stmt* take(std::string_view sql);
    // Ends what it does and forgets its values. Over statements_kept_max the one unused longest goes.
    void give_back(sqlite3_stmt* statement);

  private:
    std::vector<sqlite3_stmt*> idle_;  // the last one given back at the end
};

// One prepared statement. Used by one thread at a time; must be gone before its connection is.
class Statement {
  public:
    Statement(sqlite3_stmt* handle, StatementCache& cache) : handle_(handle), cache_(&cache) {}
    Statement(Statement&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)), cache_(other.cache_) {}
    Statement& operator=(Statement&& other) noexcept {
        std::swap(handle_, other.handle_);
        std::swap(cache_, other.cache_);
        return *this;
    }
    ~Statement();

    // Binds all parameters in their order; the values are copied.
    template <class... Values>
    Result<void> bind(const Values&... values) {
        Result<void> result;
        int index = 0;
        static_cast<void>(((result = bind_at(++index, values)).has_value() && ...));
        return result;
    }

    // True when a row is there to be read, false when there is no further one.
    Result<bool> step();

    // Columns of the current row, the first is 0. NULL reads as 0 or empty.
    int64_t integer(int column) const;
    double real(int column) const;
    std::string text(int column) const;
    std::string blob(int column) const;

  private:
    template <std::integral Integer>
    Result<void> bind_at(int index, Integer value) {
        return bind_integer(index, static_cast<int64_t>(value));
    }
    // Nothing is NULL.
    template <class Value>
    Result<void> bind_at(int index, const std::optional<Value>& value) {
        return value ? bind_at(index, *value) : bind_null(index);
    }
    Result<void> bind_at(int index, double value);
    Result<void> bind_at(int index, std::string_view text);
    Result<void> bind_at(int index, const std::string& text) { return bind_at(index, std::string_view(text)); }
    Result<void> bind_at(int index, const char* text) { return bind_at(index, std::string_view(text)); }
    Result<void> bind_at(int index, Blob blob);
    Result<void> bind_integer(int index, int64_t value);
    Result<void> bind_null(int index);

    sqlite3_stmt* handle_;
    StatementCache* cache_;
};

// One connection. Used by one thread at a time.
class Connection {
  public:
    enum class Access { read_write, read_only };

    // Opens an existing file; it is made beforehand, with its mode, by whoever owns the folder. Double-quoted
    // strings, memory mapping and trust in the schema are off, foreign keys and the lock timeout are on. A
    // read_write connection syncs at every commit. Reads nothing of the file yet.
    static Result<Connection> open(const std::filesystem::path& file, Access access);

    Connection(Connection&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)), cache_(std::move(other.cache_)) {}
    Connection& operator=(Connection&& other) noexcept {
        std::swap(handle_, other.handle_);
        std::swap(cache_, other.cache_);
        return *this;
    }
    ~Connection();

    // One or more statements with no parameters and no rows of interest.
    Result<void> execute(const char* sql);

    // One statement; a text that was prepared before costs a comparison.
    Result<Statement> prepare(std::string_view sql);

    // Prepares, binds and runs one statement to its end.
    template <class... Values>
    Result<void> run(std::string_view sql, const Values&... values) {
        auto statement = prepare(sql);
        if (!statement) return Failure(statement.error());
        if (auto bound = statement->bind(values...); !bound) return bound;
        for (;;) {
            auto row = statement->step();
            if (!row) return Failure(row.error());
            if (!*row) return {};
        }
    }

    // The first column of the first row; `not_found` if there is none.
    Result<int64_t> query_integer(std::string_view sql);

    // Switches to the write-ahead log, which is a write to the file: only when it is known to be ours.
    Result<void> use_write_ahead_log();

    // Copies the log into the file and empties it. False if a reader is in the way (waits for none).
    Result<bool> truncate_log();

    // Ends what this connection runs, with `cancelled`, soon after the flag is set. The flag outlives it.
    void stop_when(const std::atomic<bool>& flag);

    bool is_in_transaction() const;
    int64_t last_insert_id() const;
    // Rows that the last INSERT, UPDATE or DELETE changed.
    int64_t changes() const;

  private:
    explicit Connection(sqlite3* handle) : handle_(handle), cache_(std::make_unique<StatementCache>()) {}

    sqlite3* handle_;
    std::unique_ptr<StatementCache> cache_;
};

}  // namespace torpor::store
