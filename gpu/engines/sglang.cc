// SGLang's server. https://docs.sglang.io/advanced_features/server_arguments.html
//
// It listens on a port only, and on it has more than its wires: routes that load weights from any path, or take the
// memory from under it (/release_memory_occupation). So it is given a key.
#include "gpu/engine.hh"

#include <algorithm>

namespace torpor::gpu {

namespace {

Result<void> check(const Model& model) {
    if (model.path.empty()) return fail(Kind::invalid, "path is missing: the folder with the model, as Hugging Face has it");
    if (model.name.find(':') != std::string::npos) {
        return fail(Kind::invalid, "'{}' cannot be the name of a model of sglang: it takes what follows a colon for an adapter", model.name);
    }
    return refuse_own_flags(model, {"--host", "--port", "--model-path", "--model", "--served-model-name", "--api-key", "--config"});
}

Result<std::string> find(const Model&, const Folders& folders, const EnginePrograms& programs) {
    return find_program({"sglang", "sglang", "engines/sglang/bin/sglang",
                         "install it there (python3 -m venv), or name yours in config.toml: [engines] sglang = \"/path/to/sglang\""},
                        folders, programs);
}

// Command lines can be read by everybody, and it takes its key from nowhere else but there and from this file.
EngineFile private_file(const Endpoint& endpoint) {
    return {endpoint.files + ".yaml", fmt::format("api-key: \"{}\"\n", endpoint.key)};
}

std::vector<std::string> command_line(const Model& model, const Endpoint& endpoint, const std::string& program) {
    // It logs its settings as info, the key among them.
    std::vector<std::string> argv{program, "serve", "--model-path", model.path, "--served-model-name", model.name,
                                  "--host", "127.0.0.1", "--port", std::to_string(endpoint.port),
                                  "--config", private_file(endpoint).path, "--log-level", "warning"};
    argv.insert(argv.end(), model.args.begin(), model.args.end());
    return argv;
}

bool is_for_embeddings(const Model& model) {
    return std::ranges::find(model.args, "--is-embedding") != model.args.end();
}

}  // namespace

const Engine sglang_engine{
    .name = "sglang",
    .wires = {Wire::openai_chat, Wire::openai_completions, Wire::openai_responses, Wire::openai_embeddings,
              Wire::anthropic_messages},
    .ready_path = "/health",
    .refuse_io_uring = true,  // uvloop opens one
    .refuse_amx = true,
    .same_dice = true,  // seeded at the start; it heeds a request's seed with --enable-deterministic-inference only
    .path_is_folder = true,
    .model_word = "",
    // Otherwise /health computes a token and answers a second later.
    .environment = {{"HF_HUB_OFFLINE", "1"}, {"SGLANG_ENABLE_HEALTH_ENDPOINT_GENERATION", "false"}},
    .warm_up_path = "/v1/chat/completions",
    .warm_up_body = [](const Model& model) { return is_for_embeddings(model) ? std::string() : short_chat(model.name, 2); },
    .private_file = private_file,
    .uses_socket = [](const Model&) { return false; },
    .check = check,
    .find = find,
    .command_line = command_line,
};

}  // namespace torpor::gpu
