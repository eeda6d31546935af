// vLLM's OpenAI-compatible server. https://docs.vllm.ai/en/latest/cli/serve/
//
// With VLLM_SERVER_DEV_MODE it has routes of its own for sleeping (/sleep, /wake_up); the gateway passes on none but its
// wires. It has a key, too (VLLM_API_KEY), which a unix socket in a private folder does not need.
#include "gpu/engine.hh"

#include <algorithm>
#include <array>

namespace torpor::gpu {

namespace {

Result<void> check(const Model& model) {
    if (model.path.empty()) return fail(Kind::invalid, "path is missing: the folder with the model, as Hugging Face has it");
    if (auto checked = refuse_own_flags(model, {"--uds", "--host", "--port", "--model", "--served-model-name", "--api-key"}); !checked) {
        return checked;
    }
    if (model.adapters.empty()) return {};
    for (const Adapter& adapter : model.adapters) {
        if (adapter.scale != 1) return fail(Kind::invalid, "adapter.{}: vLLM applies an adapter whole; leave scale out", adapter.name);
    }
    return refuse_own_flags(model, {"--enable-lora", "--lora-modules"});
}

Result<std::string> find(const Model&, const Folders& folders, const EnginePrograms& programs) {
    return find_program({"vllm", "vllm", "engines/vllm/bin/vllm",
                         "install it there (python3 -m venv), or name yours in config.toml: [engines] vllm = \"/path/to/vllm\""},
                        folders, programs);
}

std::vector<std::string> command_line(const Model& model, const Endpoint& endpoint, const std::string& program) {
    std::vector<std::string> argv{program, "serve", model.path, "--uds", endpoint.socket, "--served-model-name", model.name};
    if (!model.adapters.empty()) argv.insert(argv.end(), {"--enable-lora", "--lora-modules"});
    for (const Adapter& adapter : model.adapters) argv.push_back(adapter.name + "=" + adapter.path);
    argv.insert(argv.end(), model.args.begin(), model.args.end());
    return argv;
}

// A server of another kind than generate has no chat to be warmed up with.
bool generates(const Model& model) {
    constexpr std::array<std::string_view, 3> kinds{"--runner", "--task", "--convert"};
    return std::ranges::none_of(model.args, [&](const std::string& a) {
        return std::ranges::find(kinds, std::string_view(a).substr(0, a.find('='))) != kinds.end();
    });
}

}  // namespace

const Engine vllm_engine{
    .name = "vllm",
    .wires = {Wire::openai_chat, Wire::openai_completions, Wire::openai_responses, Wire::openai_embeddings,
              Wire::anthropic_messages},
    .ready_path = "/health",
    .refuse_io_uring = true,  // uvloop opens one
    .refuse_amx = true,
    .same_dice = true,  // one generator, seeded at the start
    .path_is_folder = true,
    .model_word = "",
    // It serves a folder: nothing is to be fetched, and nobody is to be told.
    .environment = {{"HF_HUB_OFFLINE", "1"}, {"VLLM_NO_USAGE_STATS", "1"}},
    .warm_up_path = "/v1/chat/completions",
    // The second token is the first that is not of the prompt's own pass.
    .warm_up_body = [](const Model& model) { return generates(model) ? short_chat(model.name, 2) : std::string(); },
    .private_file = nullptr,
    .uses_socket = [](const Model&) { return true; },
    .check = check,
    .find = find,
    .command_line = command_line,
    // It serves each as a model of its own, and keeps their prompts apart.
    .adapters = {.wires = {Wire::openai_chat, Wire::openai_completions, Wire::openai_responses, Wire::anthropic_messages}},
};

}  // namespace torpor::gpu
