#include "base/fd.hh"
#include "gpu/engine.hh"
#include "gpu/worker.hh"

#include "temporary_folder.hh"

#include <doctest/doctest.h>
#include <sys/stat.h>

#include <algorithm>

using namespace torpor;
using gpu::Model;

namespace {

Model model_of(const std::string& engine) {
    Model model;
    model.name = "smol";
    model.engine = engine;
    model.path = "/models/smol";
    model.args = {"--seed", "1"};
    return model;
}

std::string line_of(const Model& model, const gpu::Endpoint& endpoint) {
    return fmt::format("{}", fmt::join(gpu::find_engine(model.engine)->command_line(model, endpoint, "/bin/engine"), " "));
}

}  // namespace

TEST_CASE("each engine is told where to listen, what to serve and what to call it") {
    const gpu::Endpoint socket{"/run/w/smol.sock", 0, "", "/run/w/smol"};
    const gpu::Endpoint port{"", 4711, "secret", "/run/w/smol"};
    CHECK(line_of(model_of("llama-server"), socket) ==
          "/bin/engine --host /run/w/smol.sock --port 8080 --model /models/smol --alias smol --seed 1");
    CHECK(line_of(model_of("vllm"), socket) == "/bin/engine serve /models/smol --uds /run/w/smol.sock --served-model-name smol --seed 1");
    CHECK(line_of(model_of("sglang"), port) ==
          "/bin/engine serve --model-path /models/smol --served-model-name smol --host 127.0.0.1 --port 4711 "
          "--config /run/w/smol.yaml --log-level warning --seed 1");
    CHECK(line_of(model_of("tgi"), port) ==
          "/bin/engine --model-id /models/smol --hostname 127.0.0.1 --port 4711 --prometheus-port 0 "
          "--shard-uds-path /run/w/smol.shard --seed 1");
    const gpu::EngineFile file = gpu::find_engine("sglang")->private_file(port);
    CHECK(file.path == "/run/w/smol.yaml");
    CHECK(file.text == "api-key: \"secret\"\n");
    CHECK(gpu::key_header(port) == "Authorization: Bearer secret\r\n");
    CHECK(gpu::key_header(socket).empty());
}

TEST_CASE("vLLM is told its adapters, which it serves by their names") {
    Model model = model_of("vllm");
    model.adapters = {{"french", "/models/french"}, {"law", "/models/law"}};
    CHECK(line_of(model, {"/run/w/smol.sock", 0}) ==
          "/bin/engine serve /models/smol --uds /run/w/smol.sock --served-model-name smol --enable-lora --lora-modules "
          "french=/models/french law=/models/law --seed 1");
    CHECK(gpu::check_model(model));
    model.adapters[1].scale = 0.5;
    CHECK(gpu::check_model(model).error().message.find("adapter.law: vLLM applies an adapter whole") != std::string::npos);
}

TEST_CASE("a model that is not for chatting is not warmed up by a chat") {
    for (const auto& [engine, flags] : std::vector<std::pair<std::string, std::vector<std::string>>>{
             {"llama-server", {"--embeddings"}}, {"vllm", {"--runner", "pooling"}}, {"vllm", {"--runner=pooling"}}, {"sglang", {"--is-embedding"}}}) {
        Model model = model_of(engine);
        CHECK(gpu::find_engine(engine)->warm_up_body(model).find("\"max_tokens\":") != std::string::npos);
        model.args = flags;
        CHECK(gpu::find_engine(engine)->warm_up_body(model).empty());
    }
    CHECK(gpu::find_engine("tgi")->warm_up_body(model_of("tgi")).find("{\"model\":\"tgi\",") == 0);
}

TEST_CASE("an engine is looked for in config.toml, on PATH, and where it is installed for Torpor") {
    TemporaryFolder folder;
    Folders folders;
    folders.data = folder.path();
    const std::string path = folder / "on-path";
    std::filesystem::create_directories(path);
    std::filesystem::create_directories(folder / "engines/vllm/bin");
    const std::string path_before = std::getenv("PATH");
    ::setenv("PATH", path.c_str(), 1);
    const auto make = [](const std::filesystem::path& file) {
        REQUIRE(write_file_atomically(file, "#!/bin/sh\n", 0755));
        return file.string();
    };
    const auto find = [&](const gpu::EnginePrograms& programs) { return gpu::find_engine("vllm")->find({}, folders, programs); };
    const auto none = find({});
    CHECK((!none && none.error().message.find("[engines] vllm = ") != std::string::npos));
    const std::string installed = make(folder / "engines/vllm/bin/vllm");
    CHECK(find({}) == installed);
    const std::string on_path = make(path + "/vllm");
    CHECK(find({}) == on_path);
    const std::string mine = make(folder / "mine");
    CHECK(find({{"vllm", mine}}) == mine);
    const auto wrong = find({{"vllm", "/nobody/vllm"}});
    CHECK((!wrong && wrong.error().message.find("config.toml names /nobody/vllm as vllm") != std::string::npos));
    ::setenv("PATH", path_before.c_str(), 1);
}

TEST_CASE("a worker's key is its token, where its engine can ask for one") {
    gpu::WorkerPlan plan;
    plan.engine = gpu::find_engine("sglang");
    gpu::give_token(plan, "abc");
    CHECK((plan.token == "abc" && plan.endpoint.key == "abc"));
    plan = {};
    plan.engine = gpu::find_engine("vllm");
    gpu::give_token(plan, "abc");
    CHECK((plan.token == "abc" && plan.endpoint.key.empty()));
}
