#include "gpu/engine.hh"

#include "base/json.hh"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <filesystem>

namespace torpor::gpu {

namespace {

const std::array<const Engine*, 5> engines{&llama_server_engine, &vllm_engine, &sglang_engine, &tgi_engine, &custom_engine};

struct WireRow {
    Wire wire;
    std::string_view name;
};
constexpr std::array<WireRow, 5> wires{{
    {Wire::openai_chat, "openai-chat"},
    {Wire::openai_completions, "openai-completions"},
    {Wire::openai_responses, "openai-responses"},
    {Wire::openai_embeddings, "openai-embeddings"},
    {Wire::anthropic_messages, "anthropic-messages"},
}};

}  // namespace

std::string_view name_of(Wire wire) {
    return wires[static_cast<size_t>(wire)].name;
}

std::optional<Wire> parse_wire(std::string_view name) {
    for (const WireRow& row : wires) {
        if (row.name == name) return row.wire;
    }
    return {};
}

std::vector<std::string> wire_names() {
    std::vector<std::string> names;
    for (const WireRow& row : wires) names.emplace_back(row.name);
    return names;
}

const Engine* find_engine(std::string_view name) {
    for (const Engine* engine : engines) {
        if (engine->name == name) return engine;
    }
    return nullptr;
}

std::vector<std::string> engine_names() {
    std::vector<std::string> names;
    for (const Engine* engine : engines) names.emplace_back(engine->name);
    return names;
}

std::vector<Wire> wires_of(const Model& model) {
    std::vector<Wire> found;
    for (const std::string& name : model.wires) {
        if (auto wire = parse_wire(name)) found.push_back(*wire);
    }
    const Engine* engine = find_engine(model.engine);
    return found.empty() && engine != nullptr ? engine->wires : found;
}

std::string find_on_path(std::string_view name) {
    if (name.find('/') != std::string_view::npos) return ::access(std::string(name).c_str(), X_OK) == 0 ? std::string(name) : "";
    const char* path = std::getenv("PATH");
    std::string_view left = path == nullptr ? "/usr/bin:/bin" : path;
    while (!left.empty()) {
        const size_t end = left.find(':');
        const std::string file = fmt::format("{}/{}", left.substr(0, end), name);
        if (file[0] == '/' && ::access(file.c_str(), X_OK) == 0 && !std::filesystem::is_directory(file)) return file;
        left = end == std::string_view::npos ? "" : left.substr(end + 1);
    }
    return {};
}

Result<std::string> find_program(const ProgramPlaces& places, const Folders& folders, const EnginePrograms& programs) {
    if (const auto configured = programs.find(places.engine); configured != programs.end()) {
        if (std::string found = find_on_path(configured->second); !found.empty()) return found;
        return fail(Kind::engine, "config.toml names {} as {}, but it cannot be run", configured->second, places.engine);
    }
    if (std::string found = find_on_path(places.program); !found.empty()) return found;
    std::string fetched = folders.data / places.fetched;
    if (::access(fetched.c_str(), X_OK) == 0) return fetched;
    return fail(Kind::engine, "{} is neither on PATH, nor is there {}; {}", places.program, fetched, places.how_to_get);
}

Result<void> refuse_own_flags(const Model& model, std::initializer_list<std::string_view> own_flags) {
    for (const std::string& argument : model.args) {
        std::string flag = argument.substr(0, argument.find('='));
        std::ranges::replace(flag, '_', '-');  // Python's servers take both
        if (std::ranges::find(own_flags, flag) != own_flags.end()) {
            return fail(Kind::invalid, "{} is set by Torpor itself; leave it out of args", flag);
        }
    }
    return {};
}

std::string short_chat(std::string_view model, int tokens_max) {
    std::string name;
    append_json_string(name, model);
    return fmt::format(R"({{"model":{},"max_tokens":{},"messages":[{{"role":"user","content":"Hi"}}]}})", name, tokens_max);
}

namespace {

Result<void> check_weights(const Model& model) {
    if (model.path.empty()) return {};
    const Engine* engine = find_engine(model.engine);
    const bool wants_folder = engine != nullptr && engine->path_is_folder;
    if (::access(model.path.c_str(), R_OK) != 0) {
        if (!wants_folder) return fail_errno(Kind::invalid, fmt::format("the model file {} cannot be read", model.path));
        return fail_errno(Kind::invalid, fmt::format("the model folder {} cannot be read; the name of one elsewhere will not do, "
                                                     "download it first", model.path));
    }
    std::error_code ignored;
    if (wants_folder && !std::filesystem::is_directory(model.path, ignored)) {
        return fail(Kind::invalid, "{} is a file, but {} serves a folder, with config.json and the weights in it", model.path, engine->name);
    }
    return {};
}

}  // namespace

Result<void> check_files(const Model& model) {
    if (auto checked = check_weights(model); !checked) return checked;
    for (const Adapter& adapter : model.adapters) {
        if (::access(adapter.path.c_str(), R_OK) == 0) continue;
        return fail_errno(Kind::invalid, fmt::format("{} of the adapter {} cannot be read", adapter.path, adapter.name));
    }
    return {};
}

std::string key_header(const Endpoint& endpoint) {
    return endpoint.key.empty() ? "" : fmt::format("Authorization: Bearer {}\r\n", endpoint.key);
}

}  // namespace torpor::gpu
