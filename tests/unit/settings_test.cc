#include "daemon/agent/settings.hh"
#include "store/store.hh"
#include "store/trust.hh"
#include "temporary_folder.hh"

#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>

using namespace torpor;

namespace {

struct Place {
    TemporaryFolder outer;
    std::unique_ptr<store::Store> store;

    Place() {
        std::filesystem::create_directories(outer / "config");
        std::filesystem::create_directories(outer / "project/.git");
        std::filesystem::create_directories(outer / "project/.torpor");
        std::filesystem::create_directories(outer / "project/deep/down");
        store = std::move(*store::Store::open(outer / "state"));
    }
    void put(const std::string& name, const std::string& text) const { std::ofstream(outer / name) << text; }
    agent::Settings read(const std::string& folder = "project") const {
        auto settings = agent::read_settings(outer / folder, outer / "config", *store);
        REQUIRE(settings);
        return *settings;
    }
    void trust(const agent::Settings& settings) const {
        REQUIRE(store->write([&](store::Connection& db) { return store::put_trust(db, {settings.project.string(), settings.hash, "owner", 1}); }));
    }
};

std::string rules_of(const std::vector<store::Grant>& rules) {
    std::string all;
    for (const store::Grant& rule : rules) all += fmt::format("{} {};", rule.decision, rule.rule);
    return all;
}

}  // namespace

TEST_CASE("a user's settings count, a project's tighten, and loosen once it is trusted as it is") {
    Place place;
    CHECK(place.read().rules.empty());
    CHECK(place.read().project.empty());
    place.put("config/settings.toml", "[permissions]\nallow = ['bash(make:*)']\n");
    place.put("project/.torpor/settings.toml", "[permissions]\nallow = ['bash(ls)']\ndeny = ['bash(rm:*)']\nask = ['write_file']\n");
    agent::Settings settings = place.read("project/deep/down");
    CHECK(settings.project == std::filesystem::canonical(place.outer / "project"));
    CHECK(rules_of(settings.rules) == "allow bash(make:*);ask write_file;deny bash(rm:*);");
    CHECK(rules_of(settings.untrusted) == "allow bash(ls);");
    CHECK_FALSE(settings.is_trusted);
    place.trust(settings);
    settings = place.read();
    CHECK(settings.is_trusted);
    CHECK(settings.untrusted.empty());
    CHECK(settings.rules.size() == 4);
    // A file beside it changes what was trusted, too.
    place.put("project/.torpor/settings.local.toml", "[permissions]\nallow = ['bash']\n");
    settings = place.read();
    CHECK_FALSE(settings.is_trusted);
    CHECK(rules_of(settings.untrusted) == "allow bash(ls);allow bash;");
}

TEST_CASE("settings that cannot be read are told, and make everything ask") {
    Place place;
    place.put("project/.torpor/settings.toml", "[permissons]\nallow = []\n[permissions]\ndenied = []\n");
    agent::Settings settings = place.read();
    CHECK_FALSE(settings.is_broken);
    REQUIRE(settings.problems.size() == 2);
    CHECK(settings.problems[0].ends_with("settings.toml:4: 'denied' is not known; there are allow, ask and deny"));
    CHECK(settings.problems[1].ends_with("settings.toml:1: 'permissons' is not a table of settings; did you mean permissions?; there is permissions"));
    for (const char* text : {"[permissions]\ndeny = 'bash'\n", "[permissions]\ndeny = [1]\n", "[permissions]\ndeny = ['bash(']\n", "permissions = 1\n", "[\n"}) {
        CAPTURE(text);
        place.put("project/.torpor/settings.toml", text);
        CHECK(place.read().is_broken);
    }
    place.put("project/.torpor/settings.toml", std::string(300 * 1024, '#'));
    CHECK(place.read().is_broken);
    std::filesystem::remove(place.outer / "project/.torpor/settings.toml");
    std::filesystem::create_symlink(place.outer / "config/settings.toml", place.outer / "project/.torpor/settings.toml");
    CHECK(place.read().is_broken);
}
