// llama.cpp's server. https://github.com/ggml-org/llama.cpp/tree/master/tools/server
#include "gpu/engine.hh"

#include "base/json.hh"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <span>

namespace torpor::gpu {

namespace {

// Flags that Torpor sets itself: where it listens, which weights, and the name in its answers.
constexpr std::array<std::string_view, 8> own_flags{"--host", "--port", "-m", "--model", "-a", "--alias", "--api-key", "--api-key-file"};

// The same for a model with adapters, and what does not go together with them.
constexpr std::array<std::string_view, 7> own_adapter_flags{"--lora", "--lora-scaled", "--lora-init-without-apply", "-cram",
                                                            "--cache-ram", "--cache-prompt", "--no-cache-prompt"};
constexpr std::array<std::string_view, 4> without_adapters{"--embedding", "--embeddings", "--rerank", "--reranking"};

bool has(std::span<const std::string_view> flags, const std::string& flag) {
    return std::ranges::find(flags, flag) != flags.end();
}

Result<void> check(const Model& model) {
    if (model.path.empty()) return fail(Kind::invalid, "path is missing: the .gguf file to serve");
    for (const std::string& argument : model.args) {
        const std::string flag = argument.substr(0, argument.find('='));
        if (has(own_flags, flag) || (!model.adapters.empty() && has(own_adapter_flags, flag))) {
            return fail(Kind::invalid, "{} is set by Torpor itself; leave it out of args", flag);
        }
        if (!model.adapters.empty() && has(without_adapters, flag)) {
            return fail(Kind::invalid, "{} and adapters do not go together: llama-server applies them to what it generates only", flag);
        }
    }
    for (const Adapter& adapter : model.adapters) {
        if (adapter.path.find_first_of(",:") != std::string::npos) {
            return fail(Kind::invalid, "adapter.{}: llama-server takes no path with a comma or colon in it; rename {}", adapter.name,
                        adapter.path);
        }
    }
    return {};
}

// All adapters are loaded, and none applies to what does not ask for one. llama-server keeps prompts for reuse without
// noting which adapters they were read with: so none beside its slots (--cache-ram), and in a slot only where
// request_members() says so.
void add_adapters(const Model& model, std::vector<std::string>& argv) {
    if (model.adapters.empty()) return;
    std::vector<std::string> files;
    for (const Adapter& adapter : model.adapters) files.push_back(adapter.path + ":0");
    const std::string list = fmt::format("{}", fmt::join(files, ","));
    for (const char* part : {"--lora-init-without-apply", "--cache-ram", "0", "--no-cache-prompt", "--lora-scaled", list.c_str()}) {
        argv.emplace_back(part);
    }
}

// An adapter's id is its place on the command line; those not named are off. A slot forgets its prompt when other adapters
// are asked for, but not when a request names none, which on Anthropic's wire none can: it then takes the slot's prompt
// for one of the model's own. So the model's own requests reuse none where that wire is spoken.
std::string request_members(const Model& model, const Adapter* adapter) {
    const auto wires = wires_of(model);
    const bool reuses = adapter != nullptr || std::ranges::find(wires, Wire::anthropic_messages) == wires.end();
    return fmt::format(R"(,"lora":[{{"id":{},"scale":{}}}],"cache_prompt":{})", adapter == nullptr ? 0 : adapter - model.adapters.data(),
                       adapter == nullptr ? 0 : adapter->scale, reuses);
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
    add_adapters(model, argv);
    argv.insert(argv.end(), model.args.begin(), model.args.end());
    return argv;
}

bool is_for_embeddings(const Model& model) {
    return std::ranges::any_of(model.args, [](const std::string& a) { return a == "--embedding" || a == "--embeddings"; });
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
    .warm_up_path = "/v1/chat/completions",
    .warm_up_body = warm_up_body,
    .uses_socket = [](const Model&) { return true; },
    .check = check,
    .find = find,
    .command_line = command_line,
    .adapters = {.wires = {Wire::openai_chat, Wire::openai_completions, Wire::openai_responses},
                 .request_members = request_members},
};

}  // namespace torpor::gpu
