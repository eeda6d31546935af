// models/NAME.toml: one model, as people write it.
#pragma once

#include "base/error.hh"

#include <chrono>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace torpor::gpu {

// A LoRA: small weights that change what the model's own answer. The same worker serves it, under a name of its own.
struct Adapter {
    std::string name;
    std::string path;    // absolute
    double scale = 1.0;  // how much of it is applied

    bool operator==(const Adapter&) const = default;
};

struct Model {
    std::string name;                        // the file's name without .toml
    std::string engine;                      // a row of the engine table
    std::string path;                        // the weights; absolute
    std::vector<std::string> args;           // added to the engine's command line
    std::map<std::string, std::string> env;  // added to the worker's environment
    std::vector<std::string> command;        // engine "custom" only
    std::string ready;                       // readiness path; empty: the engine's own
    std::vector<std::string> wires;          // empty: the engine's own
    std::vector<std::string> aliases;
    std::vector<Adapter> adapters;           // [adapter.NAME], by name
    std::optional<std::chrono::milliseconds> idle = std::chrono::minutes(10);  // nothing: never asleep by itself
    bool pinned = false;                     // never chosen to make room, never asleep by itself
    bool snapshot = true;                    // "ready" or "off"
    uint64_t memory = 0;                     // what a worker takes, in bytes; 0: guessed, then learned

    bool operator==(const Model&) const = default;
};

// The model's adapter of this name; null if it has none.
const Adapter* find_adapter(const Model& model, std::string_view name);

// Parses one model. `file` is used in messages only. The error says file, line, what is wrong, and the
// nearest known key. `notes` gets a line for each key that is known but has no effect in this version. Relative paths
// are taken from `folder`; without one they are a mistake.
Result<Model> parse_model(std::string_view name, std::string_view text, const std::string& file,
                          std::vector<std::string>* notes, const std::filesystem::path& folder = {});

// The text of a model file that parses to this model.
std::string write_model(const Model& model);

// Every key of a model file; packaging/model.example.toml must show them all.
const std::vector<std::string>& model_keys();

// What parse_model checks beyond the text: known engine and wires, names, limits. For models from the API.
Result<void> check_model(const Model& model);

// What a worker of it takes before one was ever seen, in bytes: what its file says, else by the size of its weights.
// Looks at those files' sizes.
uint64_t memory_guess(const Model& model);

}  // namespace torpor::gpu
