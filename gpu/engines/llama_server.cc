// llama.cpp's server. https://github.com/ggml-org/llama.cpp/tree/master/tools/server
#include "gpu/engine.hh"

#include <algorithm>

namespace torpor::gpu {

namespace {

Result<void> check(const Model& model) {
    if (model.path.empty()) return fail(Kind::invalid, "path is missing: the .gguf file to serve");
    // Where it listens, which weights, and the name in its answers.
    return refuse_own_flags(model, {"--host", "--port", "-m", "--model", "-a", "--alias", "--api-key", "--api-key-file"});
}

Result<std::string> find(const Model&, const Folders& folders, const EnginePrograms& programs) {
    return find_program({"llama-server", "llama-server", "engines/llama-server/llama-server",
                         "packaging/setup/fetch-llama-server fetches it"}, folders, programs);
}

std::vector<std::string> command_line(const Model& model, const Endpoint& endpoint, const std::string& program) {
    // --port is always given: with a unix socket it is only a number that must be there.
    std::vector<std::string> argv{program,  "--host",  endpoint.socket, "--port",  "8080",
                                  "--model", model.path, "--alias",      model.name};
    argv.insert(argv.end(), model.args.begin(), model.args.end());
    return argv;
}

bool is_for_embeddings(const Model& model) {
    return std::ranges::any_of(model.args, [](const std::string& a) { return a == "--embedding" || a == "--embeddings"; });
}

std::string warm_up_body(const Model& model) {
    return is_for_embeddings(model) ? "" : short_chat(model.name, 1);
}

}  // namespace

const Engine llama_server_engine{
    .name = "llama-server",
    .wires = {Wire::openai_chat, Wire::openai_completions, Wire::openai_responses, Wire::openai_embeddings,
              Wire::anthropic_messages},
    .ready_path = "/health",
    .refuse_io_uring = false,
    .refuse_amx = true,
    .same_dice = false,  // it draws a seed for each request
    .path_is_folder = false,
    .model_word = "",
    .environment = {},
    .warm_up_path = "/v1/chat/completions",
    .warm_up_body = warm_up_body,
    .private_file = nullptr,
    .uses_socket = [](const Model&) { return true; },
    .check = check,
    .find = find,
    .command_line = command_line,
};

}  // namespace torpor::gpu
