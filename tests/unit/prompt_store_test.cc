#include "gpu/prompt_store.hh"

#include "temporary_folder.hh"

#include <doctest/doctest.h>

#include <algorithm>
#include <fstream>

using namespace torpor;
using gpu::Conversation;
using gpu::PromptState;
using gpu::PromptStore;
namespace fs = std::filesystem;

namespace {

Conversation blocks(std::vector<uint64_t> hashes) {
    Conversation conversation;
    conversation.blocks = std::move(hashes);
    return conversation;
}

// As an engine and the keeper do it.
PromptState save(PromptStore& store, const std::string& model, const std::string& key, std::vector<uint64_t> hashes, size_t bytes) {
    fs::create_directories(store.folder_of(model));
    PromptState state;
    state.key = key;
    state.conversation = blocks(std::move(hashes));
    state.tokens = bytes / 10;
    state.bytes = bytes;
    state.fingerprint = "command engine\nenvironment 00\n";
    std::ofstream(store.folder_of(model) / state.file()) << std::string(bytes, 's');
    CHECK(store.keep(model, state));
    return state;
}

std::vector<std::string> files(const fs::path& folder) {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(folder)) names.push_back(entry.path().filename());
    std::ranges::sort(names);
    return names;
}

}  // namespace

TEST_CASE("prompt store: the longest beginning is found, also by the next daemon") {
    const TemporaryFolder folder;
    PromptStore store(folder.path(), 1000);
    save(store, "m", "a", {1, 2, 3}, 100);
    save(store, "m", "b", {1, 7, 8, 9}, 100);
    save(store, "other", "c", {1, 2, 3, 4, 5}, 100);
    PromptStore next(folder.path(), 1000);
    next.load();
    for (PromptStore* each : {&store, &next}) {
        const auto found = each->best("m", blocks({1, 2, 3, 4, 5}));
        REQUIRE(found);
        CHECK(found->state.key == "a");
        CHECK(found->blocks == 3);
        CHECK(found->state.tokens == 10);
        CHECK(found->state.fingerprint == "command engine\nenvironment 00\n");
        CHECK(found->state.conversation == blocks({1, 2, 3}));
        CHECK_FALSE(each->why_damaged("m", found->state));
        CHECK(each->best("m", blocks({1, 7, 8}))->state.key == "b");
        CHECK_FALSE(each->best("m", blocks({2, 3})));
        CHECK_FALSE(each->best("none", blocks({1})));
        CHECK(each->bytes_of("m") == 200);
    }
    store.remove_all("m");
    CHECK_FALSE(fs::exists(store.folder_of("m")));
    CHECK_FALSE(store.best("m", blocks({1, 2, 3})));
    CHECK(store.best("other", blocks({1, 2, 3})));
}

TEST_CASE("prompt store: a longer state makes those of its beginnings superfluous") {
    const TemporaryFolder folder;
    PromptStore store(folder.path(), 1000);
    save(store, "m", "first", {1, 2}, 100);
    save(store, "m", "apart", {1, 9}, 100);
    save(store, "m", "second", {1, 2, 3}, 150);
    CHECK(files(store.folder_of("m")) == std::vector<std::string>{"apart.record", "apart.state", "second.record", "second.state"});
}

TEST_CASE("prompt store: over the budget goes what was not used for longest, of any model") {
    const TemporaryFolder folder;
    PromptStore store(folder.path(), 250);
    save(store, "m", "a", {1, 2}, 100);
    save(store, "n", "b", {3, 4}, 100);
    store.note_used("m", "a");
    save(store, "m", "c", {5, 6}, 100);
    CHECK_FALSE(store.best("n", blocks({3, 4})));
    CHECK(files(store.folder_of("n")).empty());
    CHECK(store.best("m", blocks({1, 2})));
    CHECK(store.best("m", blocks({5, 6})));

    // One that is larger than all of it costs nobody else anything.
    PromptState giant;
    giant.key = "giant";
    giant.conversation = blocks({7, 8});
    giant.bytes = 300;
    std::ofstream(store.folder_of("m") / giant.file()) << std::string(300, 'g');
    CHECK(store.keep("m", giant).error().kind == Kind::too_large);
    CHECK(store.check_room(300).error().kind == Kind::too_large);
    CHECK(store.bytes_of("m") == 200);
    CHECK(files(store.folder_of("m")).size() == 4);
}

TEST_CASE("prompt store: what was cut short or damaged is not used") {
    const TemporaryFolder folder;
    PromptStore store(folder.path(), 10'000);
    const PromptState good = save(store, "m", "good", {1, 2}, 100);
    save(store, "m", "shorter", {3, 4}, 100);
    save(store, "m", "garbled", {5, 6}, 100);
    const fs::path of = store.folder_of("m");
    std::ofstream(of / "unfinished.state") << "half";
    std::ofstream(of / "lost.record") << "tokens 5\nstate 00 4\nblocks 1 2\n";
    fs::resize_file(of / "shorter.state", 50);
    std::ofstream(of / "garbled.record") << "tokens 10\nstate no\nblocks x\n";
    PromptStore next(folder.path(), 10'000);
    next.load();
    CHECK(files(of) == std::vector<std::string>{"good.record", "good.state"});
    CHECK_FALSE(next.best("m", blocks({3, 4})));
    std::fstream(of / "good.state", std::ios::in | std::ios::out).put('x');
    const auto found = next.best("m", blocks({1, 2}));
    REQUIRE(found);
    CHECK(next.why_damaged("m", found->state));

    // An engine that says it wrote more than it did: a full disk.
    PromptState state;
    state.key = "full";
    state.conversation = blocks({8, 9});
    state.bytes = 100;
    std::ofstream(of / state.file()) << "only this";
    CHECK_FALSE(next.keep("m", state));
    CHECK_FALSE(fs::exists(of / state.file()));
}
