// The verbs of `torpor`. A new one is a function here, its code in verbs/, and one line in verbs.cc.
#pragma once

#include "base/error.hh"
#include "clients/cli/client.hh"

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>

#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace torpor::cli {

// What a verb works with, and leaves for main(): `run` is set by the verb that the user chose.
struct Context {
    Client& client;
    std::vector<std::string> after_dashes;  // what stood after a lone --, for verbs that take it
    bool json = false;
    int exit_status = 0;  // of a verb that did what it should, and has more to say
    std::function<Result<void>()> run;
};

// Makes the verb's subcommand with its options; its callback sets Context::run.
using AddVerb = void (*)(CLI::App& app, Context& context);

// Adds all verbs, in the order of the help.
void add_verbs(CLI::App& app, Context& context);

// One subcommand with its examples below its help. `run` is called if it was chosen.
CLI::App* add_verb(CLI::App& app, Context& context, const std::string& name, const std::string& summary,
                   const std::string& examples, std::function<Result<void>()> run);

// --json
void add_json(CLI::App* verb, Context& context);

// The positional NAME of a model, which `torpor complete` knows by this name.
inline constexpr const char* model_argument = "MODEL";

void add_model_verbs(CLI::App& app, Context& context);
void add_deploy(CLI::App& app, Context& context);
void add_worker_verbs(CLI::App& app, Context& context);
void add_logs(CLI::App& app, Context& context);
void add_ask(CLI::App& app, Context& context);
void add_chat(CLI::App& app, Context& context);
void add_run(CLI::App& app, Context& context);
void add_session_verbs(CLI::App& app, Context& context);
void add_login(CLI::App& app, Context& context);
void add_permission_verbs(CLI::App& app, Context& context);
void add_key_verbs(CLI::App& app, Context& context);
void add_snapshot_verbs(CLI::App& app, Context& context);
void add_system_verbs(CLI::App& app, Context& context);
void add_daemon_verbs(CLI::App& app, Context& context);
void add_completion_verbs(CLI::App& app, Context& context);

// The names of a model's adapters, as /api/models lists it.
std::vector<std::string> adapters_of(simdjson::dom::element model);

// Prints a listing: with --json the list under `key` as it came, else what `print` makes of it.
Result<void> print_list(Context& context, const Result<Answer>& answer, std::string_view key,
                        const std::function<void(simdjson::dom::array)>& print);

}  // namespace torpor::cli
