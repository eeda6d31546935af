// Turns with a provider that says what the test wrote down for it.
#include "daemon/agent/turns.hh"

#include "base/fd.hh"
#include "temporary_folder.hh"

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <functional>
#include <future>
#include <mutex>
#include <thread>

using namespace torpor;
using namespace torpor::agent;

namespace {

llm::Block said(std::string text) {
    llm::Block block;
    block.text = std::move(text);
    return block;
}

llm::Block call(std::string id, std::string tool, std::string input) {
    llm::Block block;
    block.kind = llm::Block::Kind::tool_call;
    block.call = std::move(id);
    block.tool = std::move(tool);
    block.input = std::move(input);
    return block;
}

llm::Answer answer(std::vector<llm::Block> blocks, llm::Stop stop = llm::Stop::end) {
    return {.blocks = std::move(blocks), .stop = stop, .usage = llm::Usage{.input_tokens = 10, .output_tokens = 5}, .model = "scripted"};
}

class Scripted : public llm::Provider {
  public:
    using Reply = std::function<Result<llm::Answer>(const llm::Request&, llm::Listener&, std::stop_token)>;

    Result<llm::Answer> ask(const llm::Request& request, llm::Listener& listener, std::stop_token stop) override {
        Reply reply;
        {
            std::lock_guard lock(mutex);
            requests.push_back(request);
            if (replies.empty()) return answer({said("nothing more to say")});
            reply = replies.front();
            replies.erase(replies.begin());
        }
        auto given = reply(request, listener, stop);
        if (given) {
            for (size_t i = 0; i < given->blocks.size(); ++i) listener.on_block(i, given->blocks[i]);
        }
        return given;
    }
    Result<Count> count(const llm::Request&, std::stop_token) override { return Count{tokens, true}; }

    void then(llm::Answer given) {
        std::lock_guard lock(mutex);
        replies.push_back([given](const llm::Request&, llm::Listener&, std::stop_token) -> Result<llm::Answer> { return given; });
    }
    void then(Reply reply) {
        std::lock_guard lock(mutex);
        replies.push_back(std::move(reply));
    }

    std::mutex mutex;
    std::vector<llm::Request> requests;  // guarded by mutex
    std::vector<Reply> replies;          // guarded by mutex
    uint64_t tokens = 0;
};

struct OneProvider : llm::Providers {
    std::shared_ptr<Scripted> scripted = std::make_shared<Scripted>();
    uint64_t window = 0;
    Result<llm::Chosen> choose(std::string_view model) const override {
        if (model != "scripted") return fail(Kind::not_found, "there is no model '{}'", model);
        return llm::Chosen{scripted, {.provider = "test", .model = "scripted", .context_tokens = window, .output_tokens_max = 0,
                                      .price = llm::ModelFacts::Price{.input = 1'000'000, .output = 0, .cache_read = 0, .cache_write = 0}}};
    }
};

// Waits for what the log shall have.
class Watcher {
  public:
    void tell(const ToldPtr& told) {
        if (told->seq == 0) return;
        std::lock_guard lock(mutex_);
        kinds_.push_back(told->kind);
        came_.notify_all();
    }
    // The `count`th event of this kind.
    void wait_for(const std::string& kind, int64_t count = 1) {
        std::unique_lock lock(mutex_);
        REQUIRE_MESSAGE(came_.wait_for(lock, std::chrono::seconds(60), [&] { return std::count(kinds_.begin(), kinds_.end(), kind) >= count; }), kind);
    }

  private:
    std::mutex mutex_;
    std::condition_variable came_;
    std::vector<std::string> kinds_;
};

struct House {
    TemporaryFolder outer;
    OneProvider providers;
    Scripted& model = *providers.scripted;
    std::unique_ptr<store::Store> store;
    std::unique_ptr<Sessions> sessions;
    std::unique_ptr<Turns> turns;
    std::shared_ptr<Session> session;
    std::string id;
    std::shared_ptr<Watcher> watcher;
    std::shared_ptr<Session::Listening> listening;
    TurnLimits limits;

    House(const std::string& mode = "workspace-write") {
        std::filesystem::create_directory(outer / "project");
        start();
        store::Session row;
        row.id = id = store::new_session_id();
        row.folder = outer / "project";
        row.model = "scripted";
        row.mode = mode;
        row.created_at_ms = 1'700'000'000'000;
        session = *sessions->create(row, "{}");
        listen();
    }
    void listen() {
        watcher = std::make_shared<Watcher>();
        listening = session->listen([watcher = watcher](const ToldPtr& told) { watcher->tell(told); }).listening;
    }
    void start() {
        store = std::move(*store::Store::open(outer / "state"));
        sessions = std::make_unique<Sessions>(*store);
        Folders folders;
        folders.config = outer / "config";
        folders.state = outer / "state";
        folders.cache = outer / "cache";
        folders.runtime = outer / "runtime";
        turns = std::make_unique<Turns>(Turns::Options{*store, *sessions, providers, folders, limits});
    }
    void restart() {
        turns->stop();
        listening.reset();
        session.reset();
        turns.reset();
        sessions.reset();
        store.reset();
        start();
        session = *sessions->open(id);
        listen();
    }
    int64_t prompt(const std::string& text) {
        auto seq = turns->prompt(id, {text}, "owner");
        REQUIRE(seq);
        return *seq;
    }
    std::vector<store::Event> events() {
        return *store->read([&](store::Connection& db) { return store::events_after(db, id, 0, 10'000, 1 << 30); });
    }
    // "prompt turn_started text answered turn_ended"
    std::string kinds() {
        std::string all;
        for (const auto& event : events()) {
            if (event.kind != "created") all += (all.empty() ? "" : " ") + event.kind;
        }
        return all;
    }
    store::Event last(const std::string& kind) {
        store::Event found;
        for (const auto& event : events()) {
            if (event.kind == kind) found = event;
        }
        REQUIRE_MESSAGE(found.seq != 0, kind);
        return found;
    }
    bool has(const std::string& kind, std::string_view part) { return last(kind).body.find(part) != std::string::npos; }
    std::string file(const std::string& name) { return read_file(outer / "project" / name, 1 << 20).value_or("(not there)"); }
    store::SessionState state() {
        return store->read([&](store::Connection& db) { return store::find_session(db, id); })->state;
    }
};

}  // namespace

TEST_CASE("a prompt sets off a turn: answer, tool, result, answer") {
    House house;
    house.model.then(answer({said("I write."), call("c1", "write_file", R"({"path":"a.txt","content":"hi\n"})")}, llm::Stop::tool_calls));
    house.model.then(answer({said("Done.")}));
    house.prompt("write it");
    house.watcher->wait_for("turn_ended");
    CHECK(house.kinds() == "prompt turn_started text tool_call answered tool_started tool_result text answered turn_ended");
    CHECK(house.file("a.txt") == "hi\n");
    CHECK(house.state() == store::SessionState::idle);
    CHECK(house.has("turn_ended", R"("outcome":"done","can_retry":false,"usage":{"input":20,"output":10)"));
    CHECK(house.has("turn_ended", R"("cost":20,"answers":2,"calls":1)"));
    std::lock_guard lock(house.model.mutex);
    REQUIRE(house.model.requests.size() == 2);
    CHECK(house.model.requests[1].messages.size() == 3);
    CHECK(house.model.requests[1].messages[2].blocks[0].text == "a.txt is written: 1 lines");
}

TEST_CASE("what was sent once is sent again to the byte: the system prompt, the tools and the messages before") {
    House house;
    REQUIRE(write_file_atomically(house.outer / "project/AGENTS.md", "be brief", 0644));
    house.model.then(answer({call("c1", "read_file", R"({"path":"AGENTS.md"})")}, llm::Stop::tool_calls));
    house.prompt("one");
    house.watcher->wait_for("turn_ended", 1);
    REQUIRE(write_file_atomically(house.outer / "project/AGENTS.md", "changed", 0644));
    house.prompt("two");
    house.watcher->wait_for("turn_ended", 2);
    house.restart();
    house.prompt("three");
    house.watcher->wait_for("turn_ended", 1);
    std::lock_guard lock(house.model.mutex);
    REQUIRE(house.model.requests.size() == 4);
    CHECK(house.model.requests[0].system.find("be brief") != std::string::npos);
    for (size_t i = 1; i < 4; ++i) {
        const auto& before = house.model.requests[i - 1];
        const auto& after = house.model.requests[i];
        CHECK(after.system == before.system);
        CHECK(after.tools.size() == before.tools.size());
        REQUIRE(after.messages.size() > before.messages.size());
        for (size_t m = 0; m < before.messages.size(); ++m) CHECK(after.messages[m].blocks == before.messages[m].blocks);
    }
}

TEST_CASE("a question waits without a thread, over a restart; the first answer wins") {
    House house;
    house.model.then(answer({call("c1", "bash", R"({"command":"echo once >> done"})")}, llm::Stop::tool_calls));
    house.prompt("run it");
    house.watcher->wait_for("question");
    const int64_t question = house.last("question").seq;
    CHECK(house.has("question", R"("title":"echo once >> done","detail":"echo once >> done")"));
    CHECK(house.has("question", R"x("rules":["bash(echo once >> done)"],"choices":["once","session","always","no"])x"));
    house.restart();
    house.turns->resume_all();
    CHECK(house.turns->running_count() == 0);
    CHECK(house.state() == store::SessionState::asking);
    CHECK(house.turns->decide(house.id, question - 1, "once", "", "a").error().kind == Kind::not_found);
    CHECK(house.turns->decide(house.id, question, "perhaps", "", "a").error().kind == Kind::invalid);
    std::atomic<int> first = 0;
    {
        std::vector<std::jthread> clients;
        for (int i = 0; i < 4; ++i) {
            clients.emplace_back([&, i] {
                auto decided = house.turns->decide(house.id, question, "once", "", fmt::format("client {}", i));
                if (decided) ++first;
                if (!decided) CHECK(decided.error().kind == Kind::conflict);
            });
        }
    }
    CHECK(first == 1);
    house.watcher->wait_for("turn_ended");
    CHECK(house.file("done") == "once\n");
    CHECK(house.turns->decide(house.id, question, "no", "", "late").error().message.find("it was answered before, with 'once', by client") != std::string::npos);
}

TEST_CASE("answers: no with words, for the session, always in this folder") {
    House house;
    const std::string input = R"({"command":"echo x >> done"})";
    for (int i = 0; i < 3; ++i) {
        house.model.then(answer({call("c", "bash", input)}, llm::Stop::tool_calls));
        house.model.then(answer({said("ok")}));
    }
    house.prompt("1");
    house.watcher->wait_for("question", 1);
    REQUIRE(house.turns->decide(house.id, house.last("question").seq, "no", "use make", "owner"));
    house.watcher->wait_for("turn_ended", 1);
    CHECK(house.has("tool_result", R"("outcome":"denied","output":"The user did not allow this call, and says: use make")"));
    CHECK(house.file("done") == "(not there)");
    house.prompt("2");
    house.watcher->wait_for("question", 2);
    REQUIRE(house.turns->decide(house.id, house.last("question").seq, "session", "", "owner"));
    house.watcher->wait_for("turn_ended", 2);
    house.prompt("3");
    house.watcher->wait_for("turn_ended", 3);
    CHECK(house.file("done") == "x\nx\n");
    // Another session in this folder asks, until it is always allowed.
    for (int i = 0; i < 2; ++i) {
        auto grants = house.store->read([&](store::Connection& db) { return store::all_grants(db, (house.outer / "project").string()); });
        CHECK(grants->size() == static_cast<size_t>(i));
        store::Session row;
        row.id = house.id = store::new_session_id();
        row.folder = house.outer / "project";
        row.model = "scripted";
        row.mode = "read-only";
        house.listening.reset();
        house.session = *house.sessions->create(row, "{}");
        house.listen();
        house.model.then(answer({call("c", "bash", input)}, llm::Stop::tool_calls));
        house.prompt("again");
        if (i == 0) {
            house.watcher->wait_for("question");
            REQUIRE(house.turns->decide(house.id, house.last("question").seq, "always", "", "owner"));
        }
        house.watcher->wait_for("turn_ended");
    }
}

TEST_CASE("prompts queue and can be withdrawn; steering reaches the model between two calls") {
    House house("danger-full-access");
    std::promise<void> go;
    auto gone = go.get_future().share();
    house.model.then([gone](const llm::Request&, llm::Listener&, std::stop_token) -> Result<llm::Answer> {
        gone.wait();
        return answer({call("c1", "bash", R"({"command":"true"})")}, llm::Stop::tool_calls);
    });
    house.model.then(answer({said("one is done")}));
    const int64_t one = house.prompt("one");
    house.watcher->wait_for("turn_started");
    const int64_t two = house.prompt("two"), three = house.prompt("three");
    CHECK(house.turns->withdraw(house.id, two, "owner"));
    CHECK(house.turns->withdraw(house.id, two, "owner").error().kind == Kind::conflict);
    CHECK(house.turns->withdraw(house.id, one, "owner").error().kind == Kind::conflict);
    CHECK(house.turns->withdraw(house.id, 1, "owner").error().kind == Kind::not_found);
    REQUIRE(house.turns->steer(house.id, "be quick", "owner"));
    go.set_value();
    house.watcher->wait_for("turn_ended", 2);
    CHECK(house.turns->steer(house.id, "late", "owner").error().kind == Kind::conflict);
    std::lock_guard lock(house.model.mutex);
    REQUIRE(house.model.requests.size() == 3);
    const auto& blocks = house.model.requests[1].messages.back().blocks;
    REQUIRE(blocks.size() == 2);
    CHECK(blocks[0].kind == llm::Block::Kind::tool_result);
    CHECK(blocks[1].text == "be quick");
    CHECK(house.model.requests[2].messages.back().blocks[0].text == "three");
    CHECK(house.has("turn_started", fmt::format(R"("turn":{})", three)));
}

TEST_CASE("what is said while the last answer comes is answered in the same turn") {
    House house;
    house.model.then([&](const llm::Request&, llm::Listener&, std::stop_token) -> Result<llm::Answer> {
        REQUIRE(house.turns->steer(house.id, "and more", "owner"));
        return answer({said("first")});
    });
    house.prompt("go");
    house.watcher->wait_for("turn_ended");
    CHECK(house.kinds() == "prompt turn_started steered text answered text answered turn_ended");
}

TEST_CASE("an interruption ends the model's stream, a tool, or a question; the next prompt works") {
    House house("danger-full-access");
    house.model.then([&](const llm::Request&, llm::Listener& listener, std::stop_token stop) -> Result<llm::Answer> {
        listener.on_delta(0, llm::Block::Kind::text, "I beg");
        CHECK(house.turns->interrupt(house.id, "owner").value());
        CHECK(stop.stop_requested());
        return fail(Kind::cancelled, "stopped");
    });
    house.prompt("stream");
    house.watcher->wait_for("turn_ended", 1);
    CHECK(house.has("turn_ended", R"("outcome":"interrupted")"));
    CHECK(!house.turns->interrupt(house.id, "owner").value());

    house.model.then(answer({call("c1", "bash", R"({"command":"echo begun; sleep 1000"})"), call("c2", "bash", R"({"command":"echo x >> never"})")}, llm::Stop::tool_calls));
    house.prompt("bash");
    house.watcher->wait_for("tool_started", 1);
    CHECK(house.turns->interrupt(house.id, "owner").value());
    house.watcher->wait_for("turn_ended", 2);
    CHECK(house.kinds().ends_with("tool_started turn_interrupted tool_result tool_result turn_ended"));
    CHECK(house.has("tool_result", R"("outcome":"skipped")"));
    CHECK(house.file("never") == "(not there)");

    house.model.then(answer({said("well")}));
    house.prompt("next");
    house.watcher->wait_for("turn_ended", 3);
    CHECK(house.has("turn_ended", R"("outcome":"done")"));
}

TEST_CASE("a question of an interrupted turn takes no answer") {
    House house;
    house.model.then(answer({call("c1", "bash", R"({"command":"true"})")}, llm::Stop::tool_calls));
    house.prompt("ask");
    house.watcher->wait_for("question");
    CHECK(house.turns->interrupt(house.id, "owner").value());
    house.watcher->wait_for("turn_ended");
    CHECK(house.turns->decide(house.id, house.last("question").seq, "once", "", "owner").error().message.ends_with("its turn is over"));
}

TEST_CASE("a provider that fails is an event, and the turn can be tried again") {
    House house;
    house.model.then([](const llm::Request&, llm::Listener& listener, std::stop_token) -> Result<llm::Answer> {
        listener.on_retry(Error{Kind::busy, "test is overloaded"}, std::chrono::milliseconds(7));
        listener.on_block(0, said("half an"));
        return Failure(Error{Kind::engine, "test: the stream ended in the middle of an answer"});
    });
    CHECK(house.turns->retry(house.id, "owner").error().kind == Kind::conflict);
    house.prompt("go");
    house.watcher->wait_for("turn_ended", 1);
    CHECK(house.has("retried", R"("reason":"test is overloaded","wait_ms":7)"));
    CHECK(house.has("turn_ended", R"("outcome":"failed","reason":"test: the stream ended in the middle of an answer","can_retry":true)"));
    house.model.then(answer({said("whole")}));
    REQUIRE(house.turns->retry(house.id, "owner"));
    house.watcher->wait_for("turn_ended", 2);
    CHECK(house.has("text", R"("answer":2,"block":0,"text":"whole")"));
    CHECK(house.turns->retry(house.id, "owner").error().kind == Kind::conflict);
    std::lock_guard lock(house.model.mutex);
    CHECK(house.model.requests[1].messages.size() == 1);
}

TEST_CASE("bad calls of a model are told to it, and repeated or missing ids are replaced") {
    House house;
    house.model.then(answer({call("same", "read_file", "{"), call("same", "nothing", "{}"), call("", "read_file", R"({"file":"x"})"),
                             call("d", "read_file", R"({"path":"/proc/1/environ"})")}, llm::Stop::tool_calls));
    house.prompt("go");
    house.watcher->wait_for("turn_ended");
    std::lock_guard lock(house.model.mutex);
    const auto& blocks = house.model.requests.at(1).messages.back().blocks;
    REQUIRE(blocks.size() == 4);
    CHECK(blocks[0].text == "the input is no JSON object");
    CHECK(blocks[1].text.starts_with("there is no tool 'nothing'; there are bash"));
    CHECK(blocks[2].text.starts_with("the input is wrong: 'file' is not known"));
    CHECK(blocks[3].text.ends_with("may hold keys; no tool may read it"));
    CHECK(blocks[0].call != blocks[1].call);
    CHECK(blocks[2].call == "call_2_1_2");
}

TEST_CASE("calls that only read run side by side, in their order with those that write") {
    House house("danger-full-access");
    std::vector<llm::Block> calls;
    for (int i = 0; i < 20; ++i) calls.push_back(call(fmt::format("r{}", i), "read_file", R"({"path":"a.txt"})"));
    calls.insert(calls.begin(), call("w", "write_file", R"({"path":"a.txt","content":"new\n"})"));
    calls.push_back(call("w2", "write_file", R"({"path":"a.txt","content":"newer\n"})"));
    house.model.then(answer(calls, llm::Stop::tool_calls));
    house.prompt("go");
    house.watcher->wait_for("turn_ended");
    std::lock_guard lock(house.model.mutex);
    const auto& blocks = house.model.requests.at(1).messages.back().blocks;
    REQUIRE(blocks.size() == 22);
    for (size_t i = 1; i <= 20; ++i) CHECK(blocks[i].text == "     1\tnew\n");
    CHECK(house.file("a.txt") == "newer\n");
}

TEST_CASE("named limits end a turn, and it can go on from there") {
    House house;
    house.turns->stop();
    house.limits.calls = 3;
    house.restart();
    for (int i = 0; i < 2; ++i) house.model.then(answer({call("a", "read_file", R"({"path":"x"})"), call("b", "read_file", R"({"path":"x"})")}, llm::Stop::tool_calls));
    house.prompt("go");
    house.watcher->wait_for("turn_ended", 1);
    CHECK(house.has("turn_ended", R"("outcome":"limit","reason":"the turn met a limit: 3 tool calls; retry it to go on","limit":"turn_calls","can_retry":true)"));
    const auto events = house.events();
    CHECK(std::ranges::count_if(events, [](const auto& event) { return event.body.find(R"("outcome":"skipped")") != std::string::npos; }) == 1);
    REQUIRE(house.turns->retry(house.id, "owner"));
    house.watcher->wait_for("turn_ended", 2);
    CHECK(house.has("turn_ended", R"("outcome":"done")"));
}

TEST_CASE("a conversation over the model's window is told before it is sent") {
    House house;
    house.providers.window = 4'000;
    house.model.tokens = 5'000;
    house.prompt(std::string(10'000, 'x'));
    house.watcher->wait_for("turn_ended");
    CHECK(house.has("turn_ended", R"("limit":"context_tokens")"));
    CHECK(house.has("turn_ended", "the conversation has 5000 tokens, more than the window of scripted takes (4000"));
    std::lock_guard lock(house.model.mutex);
    CHECK(house.model.requests.empty());
}

TEST_CASE("an unknown model is a failed turn, mended by another model and a retry") {
    House house;
    REQUIRE(house.session->append("set", R"({"by":"owner","model":"none"})", {}, {.model = "none"}));
    house.prompt("go");
    house.watcher->wait_for("turn_ended", 1);
    CHECK(house.has("turn_ended", R"("outcome":"failed","reason":"there is no model 'none'")"));
    REQUIRE(house.session->append("set", R"({"by":"owner","model":"scripted"})", {}, {.model = "scripted"}));
    REQUIRE(house.turns->retry(house.id, "owner"));
    house.watcher->wait_for("turn_ended", 2);
    CHECK(house.has("turn_ended", R"("outcome":"done")"));
}

TEST_CASE("a daemon that ends leaves the turn to the next one: a started call is interrupted, never run again") {
    House house("danger-full-access");
    house.model.then(answer({call("c1", "bash", R"({"command":"echo x >> done; sleep 1000"})"), call("c2", "bash", R"({"command":"echo y >> done"})")}, llm::Stop::tool_calls));
    house.prompt("go");
    house.watcher->wait_for("tool_started");
    house.prompt("queued");
    while (house.file("done") != "x\n") std::this_thread::yield();
    house.restart();
    CHECK(house.kinds().ends_with("tool_started prompt"));
    CHECK(house.state() == store::SessionState::running);
    house.turns->resume_all();
    house.watcher->wait_for("turn_ended", 2);
    CHECK(house.file("done") == "x\ny\n");
    CHECK(house.kinds().starts_with("prompt turn_started tool_call tool_call answered tool_started prompt turn_resumed tool_result tool_started tool_result text answered turn_ended"));
    std::lock_guard lock(house.model.mutex);
    CHECK(house.model.requests[1].messages.back().blocks[0].text.find("may have happened") != std::string::npos);
}

TEST_CASE("a turn that is resumed again and again without getting further is ended") {
    House house;
    const auto hang = [](const llm::Request&, llm::Listener&, std::stop_token stop) -> Result<llm::Answer> {
        while (!stop.stop_requested()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
        return fail(Kind::cancelled, "stopped");
    };
    for (int i = 0; i <= turn_resumes_max; ++i) house.model.then(hang);
    house.prompt("go");
    house.watcher->wait_for("turn_started");
    for (int i = 1; i <= turn_resumes_max + 1; ++i) {
        house.restart();
        house.turns->resume_all();
    }
    CHECK(house.has("turn_resumed", fmt::format(R"("times":{})", turn_resumes_max)));
    CHECK(house.has("turn_ended", R"("outcome":"failed","reason":"torpord ended 3 times)"));
    house.turns->stop();
    CHECK(house.state() == store::SessionState::idle);
}

TEST_CASE("a copy that ends in the middle of a turn does not do what the other session does") {
    House house("danger-full-access");
    REQUIRE(house.session->append("prompt", R"({"text":"one"})"));
    REQUIRE(house.session->append("turn_started", R"({"turn":2,"prompt":2})"));
    REQUIRE(house.session->append("tool_call", R"({"turn":2,"answer":1,"block":0,"call":"c","tool":"bash","input":{"command":"touch twice"}})"));
    REQUIRE(house.session->append("answered", R"({"turn":2,"answer":1,"stop":"tool_calls","told":3})"));
    house.prompt("go on");
    house.watcher->wait_for("turn_ended", 2);
    CHECK(house.file("twice") == "(not there)");
    std::lock_guard lock(house.model.mutex);
    const auto& blocks = house.model.requests.at(0).messages.back().blocks;
    CHECK(blocks[0].text == "What this call did is not known.");
    CHECK(blocks[2].text == "go on");
}

TEST_CASE("images of a prompt are kept by their hash and reach the model") {
    House house;
    auto seq = house.turns->prompt(house.id, {"what is it?", {{"image/png", "the bytes"}}}, "owner");
    REQUIRE(seq);
    house.watcher->wait_for("turn_ended");
    CHECK(house.last("prompt").body.find("the bytes") == std::string::npos);
    CHECK(house.has("prompt", R"("media_type":"image/png","bytes":9)"));
    CHECK(house.turns->prompt(house.id, {"", {{"image/png", std::string(image_bytes_max + 1, 'x')}}}, "owner").error().kind == Kind::too_large);
    CHECK(house.turns->prompt(house.id, {}, "owner").error().kind == Kind::invalid);
    std::lock_guard lock(house.model.mutex);
    const auto& blocks = house.model.requests.at(0).messages.at(0).blocks;
    REQUIRE(blocks.size() == 2);
    CHECK(blocks[0].kind == llm::Block::Kind::image);
    CHECK(blocks[0].bytes == "the bytes");
    CHECK(blocks[1].text == "what is it?");
}
