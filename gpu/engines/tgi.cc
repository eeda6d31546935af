// Hugging Face's text-generation-inference, by its launcher.
// https://huggingface.co/docs/text-generation-inference/reference/launcher
//
// It listens on a port only. It has a key, but the launcher passes that on in a command line, where every user of the
// machine can read it; so it is given none, and other users of the machine can call it.
#include "gpu/engine.hh"

namespace torpor::gpu {

namespace {

// Any other name in a request is taken for that of an adapter.
constexpr std::string_view model_word = "tgi";

Result<void> check(const Model& model) {
    if (model.path.empty()) return fail(Kind::invalid, "path is missing: the folder with the model, as Hugging Face has it");
    return refuse_own_flags(model, {"--hostname", "--port", "-p", "--prometheus-port", "--model-id", "--shard-uds-path", "--api-key"});
}

Result<std::string> find(const Model&, const Folders& folders, const EnginePrograms& programs) {
    return find_program({"tgi", "text-generation-launcher", "engines/tgi/bin/text-generation-launcher",
                         "name yours in config.toml: [engines] tgi = \"/path/to/text-generation-launcher\""},
                        folders, programs);
}

std::vector<std::string> command_line(const Model& model, const Endpoint& endpoint, const std::string& program) {
    // Two of its workers would meet at the defaults of the other port and of the inner socket. 0: any free one.
    std::vector<std::string> argv{program, "--model-id", model.path, "--hostname", "127.0.0.1", "--port", std::to_string(endpoint.port),
                                  "--prometheus-port", "0", "--shard-uds-path", endpoint.files + ".shard"};
    argv.insert(argv.end(), model.args.begin(), model.args.end());
    return argv;
}

}  // namespace

const Engine tgi_engine{
    .name = "tgi",
    .wires = {Wire::openai_chat, Wire::openai_completions},
    .ready_path = "/health",
    .refuse_io_uring = true,
    .refuse_amx = true,
    .same_dice = true,  // its router draws the seeds, with a generator that is in the image
    .path_is_folder = true,
    .model_word = model_word,
    .environment = {{"HF_HUB_OFFLINE", "1"}, {"USAGE_STATS", "off"}},
    .warm_up_path = "/v1/chat/completions",
    .warm_up_body = [](const Model&) { return short_chat(model_word, 2); },
    .private_file = nullptr,
    .uses_socket = [](const Model&) { return false; },
    .check = check,
    .find = find,
    .command_line = command_line,
};

}  // namespace torpor::gpu
