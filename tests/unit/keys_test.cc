#include "store/keys.hh"

#include "base/fd.hh"
#include "store/limits.hh"
#include "temporary_folder.hh"

#include <doctest/doctest.h>
#include <sys/stat.h>

using namespace torpor;
using store::Keys;

namespace {

struct House {
    TemporaryFolder folder;
    int64_t now = 1'000'000;
    std::unique_ptr<store::Store> store;
    std::unique_ptr<Keys> keys;

    House() { open(); }
    void open() {
        keys.reset();
        store.reset();
        store = std::move(*store::Store::open(folder.path()));
        keys = std::move(*Keys::open(*store, [this] { return now; }));
    }
};

}  // namespace

TEST_CASE("a key is found by its plaintext, and by no other") {
    House house;
    const auto made = house.keys->create("laptop", Scope::models);
    REQUIRE(made);
    CHECK(made->plaintext.starts_with("tp-"));
    CHECK(made->plaintext.size() == 46);
    CHECK(made->plaintext.starts_with(made->key.prefix));
    for (int round = 0; round < 2; ++round) {
        const auto found = house.keys->find(made->plaintext);
        REQUIRE(found);
        CHECK(found->name == "laptop");
        CHECK(found->scope == Scope::models);
        for (const std::string& wrong : {std::string(), std::string("tp-"), made->plaintext + "x",
                                         made->plaintext.substr(0, 45), made->key.prefix}) {
            const auto refused = house.keys->find(wrong);
            REQUIRE(!refused);
            CHECK(refused.error().kind == Kind::unauthorized);
        }
        house.open();  // the same after a restart
    }
}

TEST_CASE("a removed key opens nothing, also after a restart") {
    House house;
    const auto made = house.keys->create("laptop", Scope::admin);
    REQUIRE(made);
    const auto missing = house.keys->remove("latop");
    REQUIRE(!missing);
    CHECK(missing.error().kind == Kind::not_found);
    CHECK(missing.error().message.find("did you mean laptop?") != std::string::npos);
    REQUIRE(house.keys->remove("laptop"));
    CHECK(!house.keys->find(made->plaintext));
    house.open();
    CHECK(!house.keys->find(made->plaintext));
    CHECK(house.keys->list().empty());
    const auto again = house.keys->create("laptop", Scope::admin);
    REQUIRE(again);
    CHECK(again->key.id > made->key.id);
    CHECK(!house.keys->find(made->plaintext));
}

TEST_CASE("bad names, taken names and scopes that no key can have are refused") {
    House house;
    REQUIRE(house.keys->create("a", Scope::models));
    CHECK(house.keys->create("a", Scope::models).error().kind == Kind::conflict);
    for (const char* name : {"", "-a", ".a", "a b", "a/b", "a\n"}) {
        CHECK(house.keys->create(name, Scope::models).error().kind == Kind::invalid);
    }
    for (const Scope scope : {Scope::open, Scope::owner}) {
        CHECK(house.keys->create("b", scope).error().kind == Kind::invalid);
    }
    CHECK(house.keys->list().size() == 1);
}

TEST_CASE("the disk holds the hash only") {
    House house;
    const auto made = house.keys->create("laptop", Scope::models);
    REQUIRE(made);
    const std::string secret = made->plaintext.substr(store::key_prefix_bytes);
    house.store->close();
    for (const auto& entry : std::filesystem::directory_iterator(house.folder.path())) {
        const auto text = read_file(entry.path(), 64 << 20);
        REQUIRE(text);
        CHECK_MESSAGE(text->find(secret) == std::string::npos, entry.path().string());
        struct stat info{};
        REQUIRE(::stat(entry.path().c_str(), &info) == 0);
        CHECK_MESSAGE((info.st_mode & 0077) == 0, entry.path().string());
    }
    CHECK(read_file(house.folder / "torpor.db", 64 << 20)->find("laptop") != std::string::npos);
}

TEST_CASE("the last use is known to the minute") {
    House house;
    const auto made = house.keys->create("laptop", Scope::models);
    REQUIRE(made);
    CHECK(house.keys->list()[0].last_used_at_ms == 0);
    const auto used_after = [&](int64_t ms) {
        house.now += ms;
        REQUIRE(house.keys->find(made->plaintext));
        return house.keys->list()[0].last_used_at_ms;
    };
    const int64_t first = used_after(0);
    CHECK(first == 1'000'000);
    CHECK(used_after(store::key_touch_gap.count() - 1) == first);
    CHECK(used_after(1) == house.now);
    house.open();
    CHECK(house.keys->list()[0].last_used_at_ms == house.now);
}
