#include "store/store.hh"

#include "base/fd.hh"
#include "store/catalogue.hh"
#include "store/schema.hh"
#include "temporary_folder.hh"

#include <doctest/doctest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <future>
#include <optional>
#include <vector>

using namespace torpor;
using store::Connection;
using store::Store;

namespace {

bool contains(const std::string& text, std::string_view part) {
    return text.find(part) != std::string::npos;
}

// An empty file, open for writing, as Store::open makes it.
Connection open_new(const std::filesystem::path& file) {
    std::ofstream{file};
    auto connection = Connection::open(file, Connection::Access::read_write);
    REQUIRE(connection);
    return std::move(*connection);
}

int64_t number(Connection& connection, std::string_view sql) {
    auto found = connection.query_integer(sql);
    REQUIRE_MESSAGE(found, (found ? "" : found.error().text()));
    return *found;
}

int64_t number(Store& store, std::string_view sql) {
    auto found = store.read([&](Connection& db) { return db.query_integer(sql); });
    REQUIRE_MESSAGE(found, (found ? "" : found.error().text()));
    return *found;
}

// What a newer Torpor would have: our versions and one more.
std::vector<const char*> longer_list(const char* more) {
    std::vector<const char*> list(store::migrations().begin(), store::migrations().end());
    list.push_back(more);
    return list;
}

void make_t(Store& store) {
    REQUIRE(store.write([](Connection& db) { return db.run("CREATE TABLE t (a INTEGER UNIQUE) STRICT"); }));
}

store::Job insert(int value) {
    return [value](Connection& db) { return db.run("INSERT INTO t VALUES (?)", value); };
}

}  // namespace

TEST_CASE("a new file gets the newest schema and our mark") {
    TemporaryFolder folder;
    auto db = open_new(folder / "torpor.db");
    REQUIRE(store::migrate(db, folder / "torpor.db", store::migrations()));
    CHECK(number(db, "PRAGMA application_id") == store::application_id);
    CHECK(number(db, "PRAGMA user_version") == static_cast<int64_t>(store::migrations().size()));
    CHECK(!std::filesystem::exists(store::backup_of(folder / "torpor.db", 0)));
    CHECK(store::migrate(db, folder / "torpor.db", store::migrations()));  // nothing left to do
}

TEST_CASE("an older file is copied before its schema changes") {
    TemporaryFolder folder;
    const auto file = folder / "torpor.db";
    auto db = open_new(file);
    REQUIRE(store::migrate(db, file, store::migrations()));
    REQUIRE(store::note_used(db, "m", 7));
    const auto version = static_cast<int64_t>(store::migrations().size());
    REQUIRE(store::migrate(db, file, longer_list("CREATE TABLE more (a INTEGER) STRICT")));
    CHECK(number(db, "PRAGMA user_version") == version + 1);
    CHECK(number(db, "SELECT count(*) FROM more") == 0);

    const auto backup = store::backup_of(file, version);
    auto copy = Connection::open(backup, Connection::Access::read_only);
    REQUIRE(copy);
    CHECK(number(*copy, "PRAGMA user_version") == version);
    CHECK(number(*copy, "PRAGMA application_id") == store::application_id);
    CHECK(number(*copy, "SELECT last_used_at_ms FROM model_seen") == 7);
    struct stat info{};
    REQUIRE(::stat(backup.c_str(), &info) == 0);
    CHECK((info.st_mode & 0777) == 0600);
}

TEST_CASE("a file of a newer version, or of another program, is refused and left alone") {
    TemporaryFolder folder;
    const auto file = folder / "torpor.db";
    auto db = open_new(file);
    REQUIRE(store::migrate(db, file, longer_list("CREATE TABLE more (a INTEGER) STRICT")));
    const auto newer = store::migrate(db, file, store::migrations());
    REQUIRE(!newer);
    CHECK(newer.error().kind == Kind::conflict);
    CHECK(contains(newer.error().message, "newer Torpor"));
    CHECK(contains(newer.error().message, file.string()));
    CHECK(contains(newer.error().message, "move it away"));
    CHECK(number(db, "SELECT count(*) FROM more") == 0);

    auto foreign = open_new(folder / "other.db");
    REQUIRE(foreign.execute("CREATE TABLE bookmarks (a INTEGER)"));
    const auto other = store::migrate(foreign, folder / "other.db", store::migrations());
    REQUIRE(!other);
    CHECK(other.error().kind == Kind::conflict);
    CHECK(contains(other.error().message, "another program"));
    CHECK(number(foreign, "SELECT count(*) FROM sqlite_schema") == 1);
}

TEST_CASE("the refusal of a newer file names the backup that this version made") {
    TemporaryFolder folder;
    const auto file = folder / "torpor.db";
    auto db = open_new(file);
    REQUIRE(store::migrate(db, file, store::migrations()));
    REQUIRE(store::migrate(db, file, longer_list("CREATE TABLE more (a INTEGER) STRICT")));
    const auto newer = store::migrate(db, file, store::migrations());
    REQUIRE(!newer);
    CHECK(contains(newer.error().message, fmt::format("torpor.db.backup-v{}", store::migrations().size())));
}

TEST_CASE("a migration that fails half-way leaves the file as it was") {
    TemporaryFolder folder;
    const auto file = folder / "torpor.db";
    auto db = open_new(file);
    REQUIRE(store::migrate(db, file, store::migrations()));
    const auto failed = store::migrate(db, file, longer_list("CREATE TABLE half (a INTEGER) STRICT; INSERT INTO nowhere VALUES (1)"));
    REQUIRE(!failed);
    CHECK(contains(failed.error().message, "it is as it was"));
    CHECK(!db.is_in_transaction());
    CHECK(number(db, "PRAGMA user_version") == static_cast<int64_t>(store::migrations().size()));
    CHECK(number(db, "SELECT count(*) FROM sqlite_schema WHERE name = 'half'") == 0);
}

TEST_CASE("a failing job undoes itself and nobody else in its group") {
    TemporaryFolder folder;
    auto store = Store::open(folder.path());
    REQUIRE(store);
    make_t(**store);
    // While this job holds the writer's thread the others gather into one group.
    std::promise<void> go;
    std::promise<void> began;
    auto first = std::async(std::launch::async, [&] {
        return (*store)->write([&](Connection& db) {
            began.set_value();
            go.get_future().wait();
            return db.run("INSERT INTO t VALUES (1)");
        });
    });
    began.get_future().wait();
    (*store)->post(insert(2));
    (*store)->post([](Connection& db) -> Result<void> {
        if (auto done = db.run("INSERT INTO t VALUES (3)"); !done) return done;
        return fail(Kind::refused, "on second thoughts");
    });
    (*store)->post([](Connection&) -> Result<void> { throw std::runtime_error("thrown"); });
    (*store)->post(insert(4));
    go.set_value();
    REQUIRE(first.get());
    const auto taken = (*store)->write(insert(2));  // after all of them, in order
    REQUIRE(!taken);
    CHECK(taken.error().kind == Kind::conflict);
    CHECK(number(**store, "SELECT group_concat(a, '') FROM t ORDER BY a") == 124);
}

TEST_CASE("errors of posted jobs reach on_post_error, and close() drains what was posted") {
    TemporaryFolder folder;
    std::vector<std::string> errors;
    {
        auto store = Store::open(folder.path(), [&](const Error& error) { errors.push_back(error.message); });
        REQUIRE(store);
        make_t(**store);
        for (int i = 0; i < 500; ++i) (*store)->post(insert(i));
        (*store)->post([](Connection&) -> Result<void> { return fail(Kind::refused, "no"); });
        (*store)->close();
        CHECK(errors == std::vector<std::string>{"no"});
        const auto late = (*store)->write(insert(1000));
        REQUIRE(!late);
        CHECK(late.error().kind == Kind::unavailable);
        const auto read = (*store)->read([](Connection& db) { return db.query_integer("SELECT 1"); });
        REQUIRE(!read);
        CHECK(read.error().kind == Kind::unavailable);
    }
    auto again = Store::open(folder.path());
    REQUIRE(again);
    CHECK(number(**again, "SELECT count(*) FROM t") == 500);
}

TEST_CASE("a write from within a write is refused, not waited for") {
    TemporaryFolder folder;
    auto store = Store::open(folder.path());
    REQUIRE(store);
    Kind kind{};
    REQUIRE((*store)->write([&](Connection&) -> Result<void> {
        kind = (*store)->write([](Connection&) -> Result<void> { return {}; }).error().kind;
        return {};
    }));
    CHECK(kind == Kind::internal);
}

TEST_CASE("readers cannot write, and see what write() acknowledged") {
    TemporaryFolder folder;
    auto store = Store::open(folder.path());
    REQUIRE(store);
    make_t(**store);
    const auto refused = (*store)->read([](Connection& db) { return db.run("INSERT INTO t VALUES (1)"); });
    CHECK(!refused);
    REQUIRE((*store)->write(insert(5)));
    CHECK(number(**store, "SELECT a FROM t") == 5);
}

TEST_CASE("a second daemon on the folder is refused, with the first one's pid") {
    TemporaryFolder folder;
    {
        auto store = Store::open(folder.path());
        REQUIRE(store);
        const auto second = Store::open(folder.path());
        REQUIRE(!second);
        CHECK(second.error().kind == Kind::conflict);
        CHECK(contains(second.error().message, std::to_string(::getpid())));
    }
    CHECK(Store::open(folder.path()));
    CHECK(std::filesystem::exists(folder / "torpor.lock"));  // never unlinked
}

TEST_CASE("a daemon that is about to end is waited for") {
    TemporaryFolder folder;
    std::optional<store::FolderLock> ending;
    {
        auto lock = store::FolderLock::take(folder.path());
        REQUIRE(lock);
        ending.emplace(std::move(*lock));
    }
    const pid_t dead = ::fork();
    if (dead == 0) ::_exit(0);
    REQUIRE(::waitpid(dead, nullptr, 0) == dead);
    std::ofstream(folder / "torpor.lock") << dead << '\n';
    auto next = std::async(std::launch::async, [&] { return store::FolderLock::take(folder.path()).has_value(); });
    CHECK(next.wait_for(std::chrono::milliseconds(50)) == std::future_status::timeout);
    ending.reset();
    CHECK(next.get());
}

TEST_CASE("network filesystems are known by their type") {
    CHECK(store::network_filesystem(0x6969) == "NFS");
    CHECK(store::network_filesystem(0xef53).empty());  // ext4
    CHECK(store::check_local_disk("/tmp"));
}

TEST_CASE("the catalogue keeps one row a model") {
    TemporaryFolder folder;
    auto db = open_new(folder / "torpor.db");
    REQUIRE(store::migrate(db, folder / "torpor.db", store::migrations()));
    REQUIRE(store::put_snapshot(db, {"b", "frozen", "/b", 1, "f", 2}));
    REQUIRE(store::put_snapshot(db, {"a", "frozen", "/a", 1, "f", 2}));
    REQUIRE(store::put_snapshot(db, {"a", "frozen", "/a2", 1ULL << 40, "with\nlines", 3}));
    auto snapshots = store::all_snapshots(db);
    REQUIRE(snapshots);
    REQUIRE(snapshots->size() == 2);
    CHECK((*snapshots)[0].path == "/a2");
    CHECK((*snapshots)[0].bytes == 1ULL << 40);
    CHECK((*snapshots)[0].fingerprint == "with\nlines");
    REQUIRE(store::remove_snapshot(db, "a"));
    CHECK(store::remove_snapshot(db, "a"));  // to remove what is not there is no error
    CHECK(store::all_snapshots(db)->size() == 1);

    REQUIRE(store::put_worker(db, {"m", 10, 20, "/s", 0, "token", "command a", 30}));
    REQUIRE(store::put_worker(db, {"m", 11, 21, "", 8080, "token2", "command b", 31}));
    auto workers = store::all_workers(db);
    REQUIRE(workers->size() == 1);
    CHECK((*workers)[0].pid == 11);
    CHECK((*workers)[0].start_time == 21);
    CHECK((*workers)[0].port == 8080);
    CHECK((*workers)[0].token == "token2");
    CHECK((*workers)[0].command == "command b");
    REQUIRE(store::remove_worker(db, "m"));
    CHECK(store::all_workers(db)->empty());
}

TEST_CASE("starts and uses of a model add up") {
    TemporaryFolder folder;
    auto db = open_new(folder / "torpor.db");
    REQUIRE(store::migrate(db, folder / "torpor.db", store::migrations()));
    REQUIRE(store::note_start(db, "m", store::Start::cold, 100));
    REQUIRE(store::note_start(db, "m", store::Start::thawed, 200));
    REQUIRE(store::note_start(db, "m", store::Start::thawed, 300));
    REQUIRE(store::note_used(db, "m", 400));
    REQUIRE(store::note_used(db, "m", 350));  // late, and so without effect
    const auto seen = store::all_models_seen(db);
    REQUIRE(seen);
    REQUIRE(seen->size() == 1);
    const store::ModelSeen& model = seen->front();
    CHECK(model.first_seen_at_ms == 100);
    CHECK(model.last_used_at_ms == 400);
    CHECK(model.cold_starts == 1);
    CHECK(model.thaws == 2);
}

TEST_CASE("an unclean exit is marked, and the file checked in the background") {
    TemporaryFolder folder;
    TemporaryFolder crashed;
    {
        auto store = Store::open(folder.path());
        REQUIRE(store);
        CHECK(!(*store)->was_unclean());
        CHECK((*store)->check_report().state == store::CheckReport::State::not_needed);
        // What a killed daemon leaves behind: the files as they lie while it runs.
        for (const char* name : {"torpor.db", "torpor.db-wal"}) std::filesystem::copy(folder / name, crashed / name);
    }
    {
        auto store = Store::open(folder.path());
        REQUIRE(store);
        CHECK(!(*store)->was_unclean());
    }
    {
        auto store = Store::open(crashed.path());
        REQUIRE(store);
        CHECK((*store)->was_unclean());
        while ((*store)->check_report().state == store::CheckReport::State::running) ::usleep(1000);
        CHECK((*store)->check_report().state == store::CheckReport::State::passed);
    }
    auto store = Store::open(crashed.path());
    REQUIRE(store);
    CHECK(!(*store)->was_unclean());
}

TEST_CASE("a damaged file is found, and stays marked") {
    TemporaryFolder folder;
    {
        auto store = Store::open(folder.path());
        REQUIRE(store);
        for (int i = 0; i < 200; ++i) {
            (*store)->post([i](Connection& db) { return store::note_used(db, fmt::format("{:0>200}", i), i); });
        }
        (*store)->close();
    }
    const auto file = folder / "torpor.db";
    auto damage = [&] {
        auto db = Connection::open(file, Connection::Access::read_write);
        REQUIRE(db);
        const int64_t page = number(*db, "SELECT rootpage FROM sqlite_schema WHERE name = 'model_seen'");
        const int64_t page_size = number(*db, "PRAGMA page_size");
        REQUIRE(db->run("UPDATE meta SET value = '0' WHERE name = 'clean_exit'"));
        return (page - 1) * page_size;
    }();
    {
        std::fstream bytes(file, std::ios::in | std::ios::out | std::ios::binary);
        bytes.seekp(damage + 3);  // the page's count of cells
        bytes.write("\xff\xff", 2);
    }
    for (int round = 0; round < 2; ++round) {
        auto store = Store::open(folder.path());
        REQUIRE(store);
        CHECK((*store)->was_unclean());
        while ((*store)->check_report().state == store::CheckReport::State::running) ::usleep(1000);
        CHECK((*store)->check_report().state == store::CheckReport::State::damaged);
        CHECK(contains((*store)->check_report().message, "torpor.db.backup"));
    }
}
