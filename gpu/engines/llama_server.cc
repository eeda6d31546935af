// llama.cpp's server. https://github.com/ggml-org/llama.cpp/tree/master/tools/server
#include "gpu/engine.hh"

#include <algorithm>
#include <array>
#include <initializer_list>

namespace torpor::gpu {

namespace {

// What does not go together with adapters.
constexpr std::array<std::string_view, 4> without_adapters{"--embedding", "--embeddings", "--rerank", "--reranking"};

Result<void> check_adapters(const Model& model) {
    if (model.adapters.empty()) return {};
    if (auto checked = refuse_own_flags(model, {"--lora", "--lora-scaled", "--lora-init-without-apply", "-cram", "--cache-ram",
                                                "--cache-prompt", "--no-cache-prompt"}); !checked) {
        return checked;
    }
    for (const std::string& argument : model.args) {
        const std::string_view flag = std::string_view(argument).substr(0, argument.find('='));
        if (std::ranges::find(without_adapters, flag) == without_adapters.end()) continue;
        return fail(Kind::invalid, "{} and adapters do not go together: llama-server applies them to what it generates only", flag);
    }
    for (const Adapter& adapter : model.adapters) {
        if (adapter.path.find_first_of(",:") == std::string::npos) continue;
        return fail(Kind::invalid, "adapter.{}: llama-server takes no path with a comma or colon in it; rename {}", adapter.name, adapter.path);
    }
    return {};
}

Result<void> check(const Model& model) {
    if (model.path.empty()) return fail(Kind::invalid, "path is missing: the .gguf file to serve");
    // Where it listens, which weights, the name in its answers, where its slots are saved.
    if (auto checked = refuse_own_flags(model, {"--host", "--port", "-m", "--model", "-a", "--alias", "--api-key", "--api-key-file",
                                                "--slot-save-path"}); !checked) {
        return checked;
    }
    return check_adapters(model);
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
    return find_program({"llama-server", "llama-server", "engines/llama-server/llama-server",
                         "packaging/setup/fetch-llama-server fetches it"}, folders, programs);
}

std::vector<std::string> command_line(const Model& model, const Endpoint& endpoint, const std::string& program) {
    // --port is always given: with a unix socket it is only a number that must be there.
    std::vector<std::string> argv{program,  "--host",  endpoint.socket, "--port",  "8080",
                                  "--model", model.path, "--alias",      model.name};
    add_adapters(model, argv);
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

// A slot's state does not tell which adapters it was made with. Where llama-server chooses a slot itself, any prompt whose tenth part is a slot's beginning would do for it; a short question has
// that much in common with every other, in what the template puts before it, and would push a long conversation out.
std::vector<std::string> prompt_flags(const Model& model, const std::string& folder, uint64_t memory_bytes) {
    if (!model.adapters.empty() || is_for_embeddings(model) || has_flag(model, {"--rerank", "--reranking", "--no-cache-prompt", "--no-slots", "--mmproj", "-mm"})) return {};
    std::vector<std::string> flags{"--slot-save-path", folder};
    if (!has_flag(model, {"--cache-ram", "-cram"})) flags.insert(flags.end(), {"--cache-ram", std::to_string(memory_bytes >> 20)});
    if (!has_flag(model, {"--slot-prompt-similarity", "-sps"})) flags.insert(flags.end(), {"--slot-prompt-similarity", "0.5"});
    return flags;
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
    // What a slot holds stays there until another prompt needs the slot. (Older versions do not know this, and do so.)
    .environment = {{"LLAMA_ARG_CACHE_IDLE_SLOTS", "0"}},
    .warm_up_path = "/v1/chat/completions",
    .warm_up_body = warm_up_body,
    .private_file = nullptr,
    .uses_socket = [](const Model&) { return true; },
    .check = check,
    .find = find,
    .command_line = command_line,
    .adapters = {.wires = {Wire::openai_chat, Wire::openai_completions, Wire::openai_responses},
                 .request_members = request_members},
    .prompt_flags = prompt_flags,
};

}  // namespace torpor::gpu
