#include "gpu/engine.hh"

#include <unistd.h>

#include <array>
#include <cstdlib>
#include <filesystem>

namespace torpor::gpu {

namespace {

const std::array<const Engine*, 2> engines{&llama_server_engine, &custom_engine};

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

}  // namespace torpor::gpu
