// Engines: the programs that serve models. One file each in engines/, one line each in the table in engine.cc.
#pragma once

#include "base/error.hh"
#include "base/folders.hh"
#include "gpu/model_file.hh"

#include <functional>
#include <initializer_list>
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
    std::string key = {};    // to be shown with each request: anybody on this machine can call a port; empty: none is asked for
    std::string files = {};  // how the names of files of its own begin, in the workers' folder
};

// The header that shows its key, with the line's end; empty if it asks for none.
std::string key_header(const Endpoint& endpoint);

// Programs named in config.toml, by engine; they come before PATH.
using EnginePrograms = std::map<std::string, std::string, std::less<>>;

// A file to be written for an engine.
struct EngineFile {
    std::string path;
    std::string text;
};

// How a request says which of a model's adapters it wants. How they get onto the command line is command_line()'s
// affair, and check() refuses what the engine cannot do. In any case the request's `model` is the adapter's name.
struct AdapterSupport {
    std::vector<Wire> wires;  // on which a request can choose one; empty: the engine serves none
    // What is added to a request on these wires, if the model has adapters: members for the end of its JSON object, each
    // after a comma, which make `adapter` answer; null: the model's own weights. Null: nothing needs to be added.
    std::string (*request_members)(const Model& model, const Adapter* adapter) = nullptr;
};

struct Engine {
    std::string_view name;
    std::vector<Wire> wires;       // what it speaks when the model's file does not say
    std::string_view ready_path;   // answers 200 once it can work, anything else before
    bool refuse_io_uring;          // or CRIU could not dump it
    bool refuse_amx;               // or a thawed process would die of it
    bool same_dice;                // after each thaw it draws the same numbers, but for a request that has a seed
    bool path_is_folder;           // what the model's `path` is, if it has one; else a file
    std::string_view model_word;   // what requests must call the model; empty: its name
    // For the worker's environment, where the model's own does not say otherwise.
    std::vector<std::pair<std::string_view, std::string_view>> environment;
    // One request that touches all the code that answering needs, for the image; empty: none.
    std::string_view warm_up_path;
    std::string (*warm_up_body)(const Model& model);

    // What must be in no command line, the key above all, for the time of the start; null: it asks for no key.
    EngineFile (*private_file)(const Endpoint& endpoint);
    // Whether it will listen on a unix socket, or needs a port.
    bool (*uses_socket)(const Model& model);
    // What check_model cannot know: required keys, flags that Torpor sets itself.
    Result<void> (*check)(const Model& model);
    // The program. Fails with `engine`, saying how to get it.
    Result<std::string> (*find)(const Model& model, const Folders& folders, const EnginePrograms& programs);
    // The whole command line, argv[0] being what find() gave.
    std::vector<std::string> (*command_line)(const Model& model, const Endpoint& endpoint, const std::string& program);
    AdapterSupport adapters = {};
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

// Where an engine's program is looked for: what config.toml names as `engine`, then PATH, then TORPOR_DATA.
struct ProgramPlaces {
    std::string_view engine;
    std::string_view program;
    std::string_view fetched;     // below TORPOR_DATA
    std::string_view how_to_get;  // a sentence's end, for people
};
Result<std::string> find_program(const ProgramPlaces& places, const Folders& folders, const EnginePrograms& programs);

// Refuses a model whose `args` has one of these, --like-this or --like_this.
Result<void> refuse_own_flags(const Model& model, std::initializer_list<std::string_view> own_flags);

// A chat of one word, for warm_up_body; of `tokens_max` tokens at most.
std::string short_chat(std::string_view model, int tokens_max);

// Whether the files that the model names are there, and its weights of the kind that its engine takes. Looks at the disk.
Result<void> check_files(const Model& model);

// The rows, each defined in engines/.
extern const Engine llama_server_engine;
extern const Engine vllm_engine;
extern const Engine sglang_engine;
extern const Engine tgi_engine;
extern const Engine custom_engine;

}  // namespace torpor::gpu
