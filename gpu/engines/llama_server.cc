// llama.cpp's server. https://github.com/ggml-org/llama.cpp/tree/master/tools/server
#include "gpu/engine.hh"

#include "base/json.hh"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <initializer_list>

namespace torpor::gpu {

namespace {

// Flags that Torpor sets itself: where it listens, which weights, the name in its answers, where its slots are saved.
constexpr std::array<std::string_view, 9> own_flags{"--host", "--port",    "-m",             "--model",         "-a",
                                                    "--alias", "--api-key", "--api-key-file", "--slot-save-path"};

Result<void> check(const Model& model) {
    if (model.path.empty()) return fail(Kind::invalid, "path is missing: the .gguf file to serve");
    for (const std::string& argument : model.args) {
        const std::string flag = argument.substr(0, argument.find('='));
        if (std::ranges::find(own_flags, flag) != own_flags.end()) {
            return fail(Kind::invalid, "{} is set by Torpor itself; leave it out of args", flag);
        }
    }
    return {};
}

Result<std::string> find(const Model&, const Folders& folders, const EnginePrograms& programs) {
    if (const auto configured = programs.find("llama-server"); configured != programs.end()) {
        if (std::string found = find_on_path(configured->second); !found.empty()) return found;
        return fail(Kind::engine, "config.toml names {} as llama-server, but it cannot be run", configured->second);
    }
    if (std::string found = find_on_path("llama-server"); !found.empty()) return found;
    const std::string fetched = folders.data / "engines/llama-server/llama-server";
    if (::access(fetched.c_str(), X_OK) == 0) return fetched;
    return fail(Kind::engine, "llama-server is neither on PATH nor in {}; packaging/setup/fetch-llama-server fetches it", fetched);
}

std::vector<std::string> command_line(const Model& model, const Endpoint& endpoint, const std::string& program) {
    // --port is always given: with a unix socket it is only a number that must be there.
    std::vector<std::string> argv{program,  "--host",  endpoint.socket, "--port",  "8080",
                                  "--model", model.path, "--alias",      model.name};
    argv.insert(argv.end(), model.args.begin(), model.args.end());
    return argv;
}

bool has_flag(const Model& model, std::initializer_list<std::string_view> flags) {
    return std::ranges::any_of(model.args, [&](const std::string& argument) {
        return std::ranges::find(flags, std::string_view(argument).substr(0, argument.find('='))) != flags.end();
    });
}

bool is_for_embeddings(const Model& model) {
    return has_flag(model, {"--embedding", "--embeddings"});
}

// Where it chooses a slot itself, any prompt whose tenth part is a slot's beginning would do for it; a short question has
// that much in common with every other, in what the template puts before it, and would push a long conversation out.
std::vector<std::string> prompt_flags(const Model& model, const std::string& folder, uint64_t memory_bytes) {
    if (is_for_embeddings(model) || has_flag(model, {"--rerank", "--reranking", "--no-cache-prompt", "--no-slots", "--mmproj", "-mm"})) return {};
    std::vector<std::string> flags{"--slot-save-path", folder};
    if (!has_flag(model, {"--cache-ram", "-cram"})) flags.insert(flags.end(), {"--cache-ram", std::to_string(memory_bytes >> 20)});
    if (!has_flag(model, {"--slot-prompt-similarity", "-sps"})) flags.insert(flags.end(), {"--slot-prompt-similarity", "0.5"});
    return flags;
}

std::string warm_up_body(const Model& model) {
    if (is_for_embeddings(model)) return {};
    std::string name;
    append_json_string(name, model.name);
    return fmt::format(R"({{"model":{},"max_tokens":1,"messages":[{{"role":"user","content":"Hi"}}]}})", name);
}

}  // namespace

const Engine llama_server_engine{
    .name = "llama-server",
    .wires = {Wire::openai_chat, Wire::openai_completions, Wire::openai_responses, Wire::openai_embeddings,
              Wire::anthropic_messages},
    .ready_path = "/health",
    .refuse_io_uring = false,
    .refuse_amx = true,
    // What a slot holds stays there until another prompt needs the slot. (Older versions do not know this, and do so.)
    .environment = {{"LLAMA_ARG_CACHE_IDLE_SLOTS", "0"}},
    .warm_up_path = "/v1/chat/completions",
    .warm_up_body = warm_up_body,
    .uses_socket = [](const Model&) { return true; },
    .check = check,
    .find = find,
    .command_line = command_line,
    .prompt_flags = prompt_flags,
};

}  // namespace torpor::gpu
