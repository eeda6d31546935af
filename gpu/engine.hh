// Engines: the programs that serve models. One file each in engines/, one line each in the table in engine.cc.
#pragma once

#include "base/error.hh"
#include "base/folders.hh"
#include "gpu/model_file.hh"

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace torpor::gpu {

// The request shapes that the gateway offers.
enum class Wire { openai_chat, openai_completions, openai_responses, openai_embeddings, anthropic_messages };

std::string_view name_of(Wire wire);
std::optional<Wire> parse_wire(std::string_view name);
std::vector<std::string> wire_names();

// Where a worker listens: a unix socket, or if that is empty a port on loopback.
struct Endpoint {
    std::string socket;
    int port = 0;
};

// Programs named in config.toml, by engine; they come before PATH.
using EnginePrograms = std::map<std::string, std::string, std::less<>>;

struct Engine {
    std::string_view name;
    std::vector<Wire> wires;       // what it speaks when the model's file does not say
    std::string_view ready_path;   // answers 200 once it can work, anything else before
    bool refuse_io_uring;          // or CRIU could not dump it
    bool refuse_amx;               // or a thawed process would die of it
    // For the worker's environment, where the model's own does not say otherwise.
    std::vector<std::pair<std::string_view, std::string_view>> environment;
    // One request that touches all the code that answering needs, for the image; empty: none.
    std::string_view warm_up_path;
    std::string (*warm_up_body)(const Model& model);

    // Whether it will listen on a unix socket, or needs a port.
    bool (*uses_socket)(const Model& model);
    // What check_model cannot know: required keys, flags that Torpor sets itself.
    Result<void> (*check)(const Model& model);
    // The program. Fails with `engine`, saying how to get it.
    Result<std::string> (*find)(const Model& model, const Folders& folders, const EnginePrograms& programs);
    // The whole command line, argv[0] being what find() gave.
    std::vector<std::string> (*command_line)(const Model& model, const Endpoint& endpoint, const std::string& program);
    // What is added to it so that the engine's prompt state can be kept in this folder (gpu/prompt_keeper.hh), and so much of
    // it in its own memory; empty: not for this model. Null: not by this engine.
    std::vector<std::string> (*prompt_flags)(const Model& model, const std::string& folder, uint64_t memory_bytes) = nullptr;
};

const Engine* find_engine(std::string_view name);
std::vector<std::string> engine_names();

// The wires that this model speaks.
std::vector<Wire> wires_of(const Model& model);

// An executable file of this name on PATH, or empty.
std::string find_on_path(std::string_view name);

// The rows, each defined in engines/.
extern const Engine llama_server_engine;
extern const Engine custom_engine;

}  // namespace torpor::gpu
