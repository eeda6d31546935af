#include "daemon/config.hh"
#include "gpu/model_file.hh"
#include "gpu/state.hh"

#include <doctest/doctest.h>

using namespace torpor;

TEST_CASE("a model file is read, and written so that it reads the same") {
    const auto model = gpu::parse_model("m", R"(engine = "llama-server"
path = "/w.gguf"
args = ["-c", "2048"]
aliases = ["a"]
idle = "90s"
snapshot = "off"
env = { X = "1" }
)", "m.toml", nullptr);
    REQUIRE(model);
    CHECK(model->idle == std::chrono::seconds(90));
    CHECK(!model->snapshot);
    const auto again = gpu::parse_model("m", gpu::write_model(*model), "m.toml", nullptr);
    REQUIRE(again);
    CHECK(*again == *model);
}

TEST_CASE("a mistake in a model file names file, line and the nearest key") {
    const auto model = gpu::parse_model("m", "engine = \"llama-server\"\npahT = \"/w\"\n", "m.toml", nullptr);
    REQUIRE(!model);
    CHECK(model.error().message.find("m.toml:2") != std::string::npos);
    const auto near = gpu::parse_model("m", "engin = \"llama-server\"\n", "m.toml", nullptr);
    REQUIRE(!near);
    CHECK(near.error().message.find("did you mean engine?") != std::string::npos);
    CHECK(!gpu::parse_model("m", "engine = \"llama-server\"\npath = \"/w\"\nargs = [\"--port\", \"1\"]\n", "m", nullptr));
    CHECK(!gpu::parse_model("m", "engine = \"custom\"\ncommand = [\"x\"]\n", "m", nullptr));
}

TEST_CASE("config.toml: known keys are taken, others named with their line") {
    const auto config = parse_config("[http]\ntcp = \"127.0.0.1:7200\"\n", "config.toml");
    REQUIRE(config);
    CHECK(config->http.tcp->port == 7200);
    const auto wrong = parse_config("[http]\ntpc = \"off\"\n", "config.toml");
    REQUIRE(!wrong);
    CHECK(wrong.error().message.find("config.toml:2") != std::string::npos);
    CHECK(wrong.error().message.find("did you mean tcp?") != std::string::npos);
}

TEST_CASE("adapters are read, written, and held apart from other names") {
    const std::string text = "engine = 'llama-server'\npath = '/w'\n[adapter.'b.1']\npath = '/b'\nscale = 0.5\n[adapter.a]\npath = '/a'\n";
    const auto model = gpu::parse_model("m", text, "m.toml", nullptr);
    REQUIRE_MESSAGE(model, (model ? "" : model.error().message));
    CHECK(model->adapters == std::vector<gpu::Adapter>{{"a", "/a", 1.0}, {"b.1", "/b", 0.5}});
    CHECK(gpu::find_adapter(*model, "b.1") == &model->adapters[1]);
    CHECK(gpu::find_adapter(*model, "m") == nullptr);
    const auto again = gpu::parse_model("m", gpu::write_model(*model), "m.toml", nullptr);
    REQUIRE(again);
    CHECK(*again == *model);

    gpu::Model other = *model;
    other.name = "other";
    other.adapters = {{"x", "/x"}};
    CHECK(check_names({*model, other}));
    for (const char* taken : {"m", "other", "a", "c"}) {
        CAPTURE(taken);
        other.adapters = {{taken, "/x"}};
        gpu::Model with_alias = *model;
        with_alias.aliases = {"c"};
        CHECK(!check_names({with_alias, other}));
    }
}

TEST_CASE("a mistake is found on its line, also when only the whole file shows it") {
    struct Wrong {
        const char* text;
        int line;
    };
    for (const Wrong& wrong : {Wrong{"path = '/w'\nengine = 'llama-sever'", 2}, Wrong{"engine = 'llama-server'\npath = 'w'", 2},
                               Wrong{"path = '/w'\nwires = ['x']\nengine = 'custom'", 2},
                               Wrong{"engine = 'llama-server'\nargs = [\n'-c', '1',\n'--port', '1']\npath = '/w'", 4},
                               Wrong{"engine = 'llama-server'\n[adapter.a]\npth = '/a'", 3},
                               Wrong{"engine = 'custom'\nready = 'x'\ncommand = ['{port}']", 2}}) {
        CAPTURE(wrong.text);
        const auto model = gpu::parse_model("m", wrong.text, "m.toml", nullptr);
        REQUIRE(!model);
        CHECK_MESSAGE(model.error().message.starts_with(fmt::format("m.toml:{}: ", wrong.line)), model.error().message);
    }
}

TEST_CASE("every state can be left, and sleeping leads back only through resuming or a cold start") {
    using gpu::State;
    for (int i = 0; i <= static_cast<int>(State::failed); ++i) {
        bool can_leave = false;
        for (int j = 0; j <= static_cast<int>(State::failed); ++j) {
            can_leave = can_leave || gpu::may_move(static_cast<State>(i), static_cast<State>(j));
        }
        CHECK(can_leave);
    }
    CHECK(!gpu::may_move(State::asleep, State::ready));
    CHECK(!gpu::may_move(State::stopped, State::ready));
}

TEST_CASE("what the TOML parser trips over is refused with its line") {
    for (const char* text : {"# one\n[\x1f", "\npi\xd1\x92 = 1", "\ntext = \"a\x01\"", "\n\xc3\xa9 = 1", "a = ''''\n''' \xc3\xa9",
                             "a = \"\\\"\"\n\xc3\xa9", "[a]\n[+", "a = [1]\n[\n", "a = [\"[\"] # [\n[[ .x]]",
                             "\na = [}[", "\na = 0\"l\xcf\x93", "\na = 0[\"\xcf\x93\"]"}) {
        const auto config = parse_config(text, "config.toml");
        REQUIRE_MESSAGE(!config, text);
        CHECK_MESSAGE(config.error().message.starts_with("config.toml:2: "), config.error().message);
    }
}

TEST_CASE("lists over several lines may begin theirs with brackets") {
    const auto model = gpu::parse_model("m", "engine = 'custom'\ncommand = [\n'[', # [\n'{port}'\n]\n[env]\nA = '['\n", "m.toml", nullptr);
    REQUIRE_MESSAGE(model, (model ? "" : model.error().message));
    CHECK(model->command.size() == 2);
}

TEST_CASE("letters of all languages are welcome in quotes and comments") {
    for (const char* text : {"engine = \"llama-server\" # f\xc3\xbcr\npath = \"/Modelle/\xc3\xa9.gguf\"\n",
                             "\xef\xbb\xbf" "engine = 'llama-server'\npath = \"\"\"\n/\\\"\xc3\xa9\"\"\"\"\" # \xc3\xa9\n",
                             "engine = 'llama-server'\npath = '''/\xc3\xa9 ''''\n"}) {
        const auto model = gpu::parse_model("m", text, "m.toml", nullptr);
        REQUIRE_MESSAGE(model, (model ? "" : model.error().message));
        CHECK(model->path.find("\xc3\xa9") != std::string::npos);
    }
}
