// What it costs to keep events: 64 writers through the store, beside plain SQLite with as many rows in each commit.
//
//     bench-sessions [FOLDER]      on the disk of this folder; the current one by default
#include "store/sessions.hh"
#include "store/store.hh"

#include <sqlite3.h>
#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <thread>

using namespace torpor;
using Clock = std::chrono::steady_clock;

namespace {

constexpr int writers = 64, events_each = 200;
const std::string body = R"({"turn":2,"answer":1,"block":0,"text":")" + std::string(200, 'x') + "\"}";

double seconds_since(Clock::time_point began) {
    return std::chrono::duration<double>(Clock::now() - began).count();
}

double fsync_seconds(const std::filesystem::path& folder) {
    const auto file = folder / "fsync";
    const int fd = ::open(file.c_str(), O_RDWR | O_CREAT, 0600);
    const auto began = Clock::now();
    constexpr int times = 50;
    for (int i = 0; i < times; ++i) {
        if (::pwrite(fd, body.data(), body.size(), 0) < 0 || ::fsync(fd) != 0) std::abort();
    }
    ::close(fd);
    std::filesystem::remove(file);
    return seconds_since(began) / times;
}

void make_sessions(const std::filesystem::path& folder, const std::vector<std::string>& ids) {
    auto store = std::move(*store::Store::open(folder));
    for (const std::string& id : ids) {
        store::Session row;
        row.id = id;
        row.folder = "/work";
        row.mode = "read-only";
        if (!store->write([&](store::Connection& db) { return store::add_session(db, row); })) std::abort();
    }
}

double through_the_store(const std::filesystem::path& folder) {
    std::vector<std::string> ids;
    for (int i = 0; i < writers; ++i) ids.push_back(store::new_session_id());
    make_sessions(folder, ids);
    auto store = std::move(*store::Store::open(folder));
    const auto began = Clock::now();
    std::vector<std::jthread> threads;
    for (const std::string& id : ids) {
        threads.emplace_back([&store, &id] {
            for (int i = 0; i < events_each; ++i) {
                const auto done = store->write([&](store::Connection& db) -> Result<void> {
                    auto appended = store::append_event(db, id, "text", body, 1);
                    return appended ? Result<void>() : Failure(appended.error());
                });
                if (!done) std::abort();
            }
        });
    }
    threads.clear();
    return writers * events_each / seconds_since(began);
}

// What append_event() (store/sessions.cc) runs for each event, on the same tables, prepared once; `group` events in a transaction.
double plain_sqlite(const std::filesystem::path& folder, int group) {
    std::vector<std::string> ids;
    for (int i = 0; i < writers; ++i) ids.push_back(store::new_session_id());
    make_sessions(folder, ids);
    sqlite3* db = nullptr;
    if (sqlite3_open((folder / "torpor.db").c_str(), &db) != SQLITE_OK) std::abort();
    const auto run = [&](const char* sql) {
        if (sqlite3_exec(db, sql, nullptr, nullptr, nullptr) != SQLITE_OK) std::abort();
    };
    run("PRAGMA synchronous=FULL");
    sqlite3_stmt *update = nullptr, *insert = nullptr;
    sqlite3_prepare_v2(db, "UPDATE session SET last_seq = last_seq + 1, updated_at_ms = max(updated_at_ms, 1) WHERE id = ? RETURNING number, last_seq",
                       -1, &update, nullptr);
    sqlite3_prepare_v2(db, "INSERT INTO event (place, kind, body, at_ms) VALUES (?, 'text', ?, 1)", -1, &insert, nullptr);
    const auto began = Clock::now();
    for (int i = 0; i < writers * events_each; ++i) {
        if (i % group == 0) run("BEGIN IMMEDIATE");
        sqlite3_bind_text(update, 1, ids[static_cast<size_t>(i % writers)].c_str(), -1, SQLITE_TRANSIENT);
        if (sqlite3_step(update) != SQLITE_ROW) std::abort();
        sqlite3_bind_int64(insert, 1, (sqlite3_column_int64(update, 0) << 32) + sqlite3_column_int64(update, 1));
        sqlite3_reset(update);
        sqlite3_bind_text(insert, 2, body.data(), static_cast<int>(body.size()), SQLITE_TRANSIENT);
        if (sqlite3_step(insert) != SQLITE_DONE) std::abort();
        sqlite3_reset(insert);
        if ((i + 1) % group == 0) run("COMMIT");
    }
    const double rate = writers * events_each / seconds_since(began);
    sqlite3_finalize(update);
    sqlite3_finalize(insert);
    sqlite3_close(db);
    return rate;
}

}  // namespace

int main(int argc, char** argv) {
    const std::filesystem::path folder = std::filesystem::path(argc > 1 ? argv[1] : ".") / fmt::format("torpor-bench-{}", ::getpid());
    std::filesystem::create_directories(folder);
    std::filesystem::permissions(folder, std::filesystem::perms::owner_all);
    const double fsync = fsync_seconds(folder);
    const double plain = plain_sqlite(folder / "plain", writers), ours = through_the_store(folder / "store");
    std::printf("%-58s %11.3f ms\n", "fsync of this disk", 1000 * fsync);
    std::printf("%-58s %9.0f /s\n", "plain SQLite, one thread, 64 events a commit", plain);
    std::printf("%-58s %9.0f /s  %.2f of plain, goal 0.8\n", "64 writers through the store, each event durable", ours, ours / plain);
    std::filesystem::remove_all(folder);
}
