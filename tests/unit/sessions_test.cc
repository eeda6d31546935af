#include "daemon/agent/sessions.hh"

#include "daemon/agent/limits.hh"
#include "daemon/api/session_file.hh"
#include "store/schema.hh"
#include "store/store.hh"
#include "temporary_folder.hh"

#include <doctest/doctest.h>

#include <fstream>
#include <thread>

using namespace torpor;
using store::Connection;
using store::Store;

namespace {

struct House {
    TemporaryFolder folder;
    std::unique_ptr<Store> store = std::move(*Store::open(folder.path()));

    std::string add(const std::string& where = "/work/one", const std::string& title = "") {
        store::Session row;
        row.id = store::new_session_id();
        row.folder = where;
        row.title = title;
        row.model = "m";
        row.mode = "read-only";
        row.created_at_ms = 1000;
        REQUIRE(store->write([&](Connection& db) { return store::add_session(db, row); }));
        return row.id;
    }
    int64_t append(const std::string& id, const std::string& kind, const std::string& text = "", int64_t at_ms = 2000,
                   const store::SessionChange& change = {}) {
        int64_t seq = 0;
        REQUIRE(store->write([&](Connection& db) -> Result<void> {
            auto appended = store::append_event(db, id, kind, "{\"a\":1}", at_ms, text, change);
            if (!appended) return Failure(appended.error());
            seq = *appended;
            return {};
        }));
        return seq;
    }
    std::vector<std::string> find(const store::SessionQuery& query) {
        std::vector<std::string> ids;
        const auto found = store->read([&](Connection& db) { return store::find_sessions(db, query); });
        REQUIRE_MESSAGE(found, (found ? "" : found.error().text()));
        for (const auto& one : *found) ids.push_back(one.session.id);
        return ids;
    }
    int64_t count(const std::string& table) {
        return *store->read([&](Connection& db) { return db.query_integer("SELECT count(*) FROM " + table); });
    }
};

}  // namespace

TEST_CASE("sessions: ids sort by time, and their beginnings find them") {
    House house;
    const std::string first = house.add();
    CHECK(first.size() == 26);
    // Within one millisecond they come in any order.
    for (const int64_t before = store::now_ms(); store::now_ms() == before;) std::this_thread::yield();
    const std::string second = house.add();
    CHECK(first < second);
    const auto complete = [&](const std::string& text) { return house.store->read([&](Connection& db) { return store::complete_session_id(db, text); }); };
    CHECK(*complete(first) == first);
    CHECK(complete(first.substr(0, 4)).error().kind == Kind::conflict);
    CHECK(complete("zzz").error().kind == Kind::not_found);
    CHECK(complete("").error().kind == Kind::not_found);
    CHECK(complete("'; DROP").error().kind == Kind::not_found);
}

TEST_CASE("sessions: events are numbered without gaps, and a failed transaction leaves none") {
    House house;
    const std::string id = house.add();
    CHECK(house.append(id, "created") == 1);
    const auto refused = house.store->write([&](Connection& db) -> Result<void> {
        auto appended = store::append_event(db, id, "prompt", "{}", 3000);
        if (!appended) return Failure(appended.error());
        return fail(Kind::conflict, "no");
    });
    CHECK(!refused);
    CHECK(house.append(id, "prompt", "hello", 3000, {.model = "other", .state = store::SessionState::running}) == 2);
    const auto row = house.store->read([&](Connection& db) { return store::find_session(db, id); });
    CHECK(row->last_seq == 2);
    CHECK(row->model == "other");
    CHECK(row->state == store::SessionState::running);
    CHECK(row->updated_at_ms == 3000);
    const auto events = house.store->read([&](Connection& db) { return store::events_after(db, id, 1, 10, 1000); });
    REQUIRE(events->size() == 1);
    CHECK(events->front().kind == "prompt");
    CHECK(house.store->read([&](Connection& db) { return store::events_after(db, id, 0, 10, 3); })->size() == 1);  // at least one
    CHECK(house.store->read([&](Connection& db) { return store::find_event(db, id, 3); }).error().kind == Kind::not_found);
    CHECK((*house.store->read([&](Connection& db) { return store::last_event(db, id, "created"); }))->seq == 1);
}

TEST_CASE("sessions: found by folder, words, state and time") {
    House house;
    const std::string one = house.add("/work/one", "Bears in winter"), below = house.add("/work/one/deep"), beside = house.add("/work/onerous");
    house.append(one, "prompt", "How do bears sleep?", 2000);
    house.append(below, "text", "Bats hang, bears lie.", 3000, {.state = store::SessionState::asking});
    house.append(beside, "set", "", 4000, {.is_archived = true});
    CHECK(house.find({}) == std::vector{below, one});
    CHECK(house.find({.with_archived = true}) == std::vector{beside, below, one});
    CHECK(house.find({.folder = "/work/one/"}) == std::vector{below, one});
    CHECK(house.find({.folder = "/"}) == std::vector{below, one});
    CHECK(house.find({.text = "bears"}) == std::vector{below, one});
    CHECK(house.find({.text = "bear"}) == std::vector{below, one});  // the beginning of a word
    CHECK(house.find({.text = "winter"}) == std::vector{one});       // of a title
    CHECK(house.find({.text = "bears sleep"}) == std::vector{one});
    for (const char* syntax : {"\"", "NEAR(", "a OR", "*", "text:bears", "(", "-", "^"}) {
        CAPTURE(syntax);
        CHECK(house.find({.text = syntax}).empty());
    }
    CHECK(house.find({.state = store::SessionState::asking}) == std::vector{below});
    CHECK(house.find({.before_ms = 3000}) == std::vector{one});
    house.append(one, "set", "", 5000, {.title = "Wolves"});
    CHECK(house.find({.text = "winter"}).empty());
    CHECK(house.find({.text = "wolves"}) == std::vector{one});
}

TEST_CASE("sessions: what is removed is gone, and what others use stays") {
    House house;
    const std::string one = house.add(), two = house.add();
    house.append(one, "prompt", "only here");
    house.append(two, "prompt", "stays");
    std::string shared, own;
    REQUIRE(house.store->write([&](Connection& db) -> Result<void> {
        shared = *store::put_content(db, one, "shared");
        own = *store::put_content(db, one, "own");
        return store::put_content(db, two, "shared") ? Result<void>() : fail(Kind::internal, "");
    }));
    CHECK(house.count("content") == 2);
    CHECK(*house.store->read([&](Connection& db) { return store::find_content(db, one, own); }) == "own");
    CHECK(house.store->read([&](Connection& db) { return store::find_content(db, two, own); }).error().kind == Kind::not_found);  // not its own
    REQUIRE(house.store->write([&](Connection& db) { return store::remove_session(db, one); }));
    CHECK(house.count("content") == 1);
    CHECK(house.count("event") == 1);
    CHECK(house.find({.text = "only"}).empty());
    CHECK(house.find({.text = "stays"}) == std::vector{two});
    CHECK(house.store->write([&](Connection& db) { return store::remove_session(db, one); }).error().kind == Kind::not_found);
}

TEST_CASE("sessions: a database from before there were any gets them") {
    TemporaryFolder folder;
    {
        std::ofstream{folder / "torpor.db"};
        auto old = Connection::open(folder / "torpor.db", Connection::Access::read_write);
        REQUIRE(old);
        REQUIRE(store::migrate(*old, folder / "torpor.db", store::migrations().first(4)));
        REQUIRE(old->run("INSERT INTO model_seen (name, first_seen_at_ms) VALUES ('bear', 1)"));
    }
    auto opened = Store::open(folder.path());
    REQUIRE_MESSAGE(opened, (opened ? "" : opened.error().text()));
    CHECK(*(*opened)->read([](Connection& db) { return db.query_integer("SELECT count(*) FROM model_seen"); }) == 1);
    CHECK(*(*opened)->read([](Connection& db) { return db.query_integer("SELECT count(*) FROM session"); }) == 0);
}

TEST_CASE("sessions: grants are kept by folder and rule") {
    House house;
    const auto put = [&](const std::string& decision) {
        return house.store->write([&](Connection& db) { return store::put_grant(db, {0, "/work", "bash(ls)", decision, "owner", 1}); });
    };
    REQUIRE(put("allow"));
    REQUIRE(put("deny"));
    const auto grants = house.store->read([](Connection& db) { return store::all_grants(db, "/work"); });
    REQUIRE(grants->size() == 1);
    CHECK(grants->front().decision == "deny");
    CHECK(house.store->read([](Connection& db) { return store::all_grants(db, "/elsewhere"); })->empty());
    const int64_t id = grants->front().id;
    REQUIRE(house.store->write([&](Connection& db) { return store::remove_grant(db, id); }));
    CHECK(house.store->write([&](Connection& db) { return store::remove_grant(db, id); }).error().kind == Kind::not_found);
}

TEST_CASE("those who listen see one order, each event once, and what comes late begins with what is under way") {
    House house;
    agent::Sessions sessions(*house.store);
    const std::string id = house.add();
    auto session = sessions.open(id);
    REQUIRE(session);
    std::vector<int64_t> first, second;
    const auto one = (*session)->listen([&](const agent::ToldPtr& told) { if (told->seq > 0) first.push_back(told->seq); });
    {
        std::vector<std::jthread> threads;
        for (int i = 0; i < 4; ++i) {
            threads.emplace_back([&] {
                for (int j = 0; j < 20; ++j) static_cast<void>((*session)->append("prompt", "{}"));
            });
        }
    }
    const auto two = (*session)->listen([&](const agent::ToldPtr& told) { if (told->seq > 0) second.push_back(told->seq); });
    CHECK(two.last_seq == 80);
    CHECK((*session)->append("prompt", "{}").value() == 81);
    REQUIRE(first.size() == 81);
    for (size_t i = 0; i < first.size(); ++i) CHECK(first[i] == static_cast<int64_t>(i) + 1);
    CHECK(second == std::vector<int64_t>{81});

    const std::string block = R"("turn":2,"answer":1,"block":0)";
    (*session)->tell_delta(block, "text", "Hello ");
    (*session)->tell_delta(block, "text", "\"you\"");
    const auto open_blocks = [&] {
        std::vector<std::string> bodies;
        for (const auto& told : (*session)->listen([](const agent::ToldPtr&) {}).now) {
            if (told->kind != "state") bodies.push_back(told->body);
        }
        return bodies;
    };
    CHECK(open_blocks() == std::vector<std::string>{R"({"turn":2,"answer":1,"block":0,"kind":"text","offset":0,"text":"Hello \"you\""})"});
    CHECK((*session)->append("text", R"({"turn":2,"answer":1,"block":01,"text":"another"})"));
    CHECK(open_blocks().size() == 1);
    CHECK((*session)->append("text", R"({"turn":2,"answer":1,"block":0,"text":"Hello you"})"));
    CHECK(open_blocks().empty());
    (*session)->tell_delta(block, "text", std::string(agent::open_block_bytes_max, 'x') + "end");
    CHECK(open_blocks()[0].size() < agent::open_block_bytes_max);
    CHECK(open_blocks()[0].ends_with("end\"}"));
}

TEST_CASE("a session that nobody holds costs nothing") {
    House house;
    agent::Sessions sessions(*house.store);
    const std::string id = house.add();
    {
        const auto held = sessions.open(id);
        CHECK(sessions.open_count() == 1);
        CHECK(*sessions.open(id) == *held);
    }
    CHECK(sessions.open_count() == 0);
    CHECK(sessions.open("nobody").error().kind == Kind::not_found);
}
