#include "base/json.hh"
#include "base/text.hh"
#include "clients/cli/output.hh"
#include "clients/cli/verbs.hh"

#include <filesystem>

namespace torpor::cli {

namespace {

struct NewModel {
    std::string name, engine, path, idle, ready, snapshot, memory;
    std::vector<std::string> aliases, wires, env, adapters;
    bool pinned = false, replace = false;
};

// The daemon has another working directory.
std::string absolute(const std::string& path) {
    return std::filesystem::absolute(path).lexically_normal().string();
}

Result<std::string> body_of(const NewModel& model, const Context& context) {
    const bool is_custom = model.engine == "custom";
    JsonWriter json;
    json.begin_object().member("name", model.name).member("engine", model.engine);
    if (!model.path.empty()) json.member("path", absolute(model.path));
    if (!model.idle.empty()) json.member("idle", model.idle);
    if (!model.ready.empty()) json.member("ready", model.ready);
    if (!model.memory.empty()) json.member("memory", model.memory);
    if (!model.snapshot.empty()) json.member("snapshot", model.snapshot);
    if (model.pinned) json.member("pinned", true);
    const auto list = [&](std::string_view key, const std::vector<std::string>& texts) {
        if (texts.empty()) return;
        json.key(key).begin_array();
        for (const std::string& text : texts) json.value(text);
        json.end_array();
    };
    list(is_custom ? "command" : "args", context.after_dashes);
    list("aliases", model.aliases);
    list("wires", model.wires);
    if (!model.adapters.empty()) {
        json.key("adapter").begin_object();
        for (const std::string& pair : model.adapters) {
            const size_t equals = pair.find('=');
            if (equals == std::string::npos) return fail(Kind::invalid, "--adapter '{}' is not NAME=FILE", pair);
            json.key(pair.substr(0, equals)).begin_object().member("path", absolute(pair.substr(equals + 1))).end_object();
        }
        json.end_object();
    }
    if (!model.env.empty()) {
        json.key("env").begin_object();
        for (const std::string& pair : model.env) {
            const size_t equals = pair.find('=');
            if (equals == std::string::npos) return fail(Kind::invalid, "--env '{}' is not NAME=VALUE", pair);
            json.member(pair.substr(0, equals), pair.substr(equals + 1));
        }
        json.end_object();
    }
    json.member("replace", model.replace).end_object();
    return json.take();
}

void add_add(CLI::App& group, Context& context) {
    static NewModel model;
    CLI::App* verb = add_verb(
        group, context, "add", "add a model: torpor model add NAME --engine ENGINE --path FILE [-- ARGUMENTS]",
        "  torpor model add smollm2 --path ~/models/SmolLM2-135M-Instruct.Q4_1.gguf\n"
        "  torpor model add coder --path coder.gguf --alias gpt-4o --idle 30m -- -c 16384\n"
        "  torpor model add large --engine vllm --path ~/models/large -- --gpu-memory-utilization 0.5\n"
        "  torpor model add mine --engine custom --ready /health -- ./serve --port {port}",
        [&context]() -> Result<void> {
            auto body = body_of(model, context);
            if (!body) return Failure(body.error());
            auto added = context.client.post("/api/models", *body);
            if (!added) return Failure(added.error());
            print_line(fmt::format("{} is added; ask it with: torpor ask {} \"…\"", model.name, model.name));
            return {};
        });
    verb->add_option("NAME", model.name, "what clients call it")->required();
    verb->add_option("--engine", model.engine, "llama-server, vllm, sglang, tgi, or custom (the command line after --)")->default_val("llama-server");
    verb->add_option("--path", model.path, "the file or folder with the weights");
    verb->add_option("--alias", model.aliases, "another name that clients may use (again for more)")->allow_extra_args(false);
    verb->add_option("--adapter", model.adapters, "NAME=FILE: a LoRA that is asked for by this name (again for more)")->allow_extra_args(false);
    verb->add_option("--idle", model.idle, "sleep after this long without a request, like 10m; never");
    verb->add_flag("--pinned", model.pinned, "never sleep by itself");
    verb->add_option("--snapshot", model.snapshot, "off: keep no image of its memory on disk; every start is cold")
        ->check(CLI::IsMember(std::vector<std::string>{"ready", "off"}));
    verb->add_option("--memory", model.memory, "what a worker takes, like 6GiB, if Torpor's own guess is wrong");
    verb->add_option("--ready", model.ready, "the path that answers 200 once a custom engine serves");
    verb->add_option("--wire", model.wires, "a wire that a custom engine speaks, like openai-chat")->allow_extra_args(false);
    verb->add_option("--env", model.env, "NAME=VALUE for the engine's environment")->allow_extra_args(false);
    verb->add_flag("--replace", model.replace, "take the place of a model with this name");
}

}  // namespace

std::vector<std::string> adapters_of(simdjson::dom::element model) {
    std::vector<std::string> names;
    for (const simdjson::dom::element adapter : Answer::list(model, "adapters")) names.emplace_back(Answer::text(adapter, "name"));
    return names;
}

void add_model_verbs(CLI::App& app, Context& context) {
    CLI::App* group = app.add_subcommand("model", "add, list and remove models");
    group->require_subcommand(1);
    add_add(*group, context);

    CLI::App* list = add_verb(*group, context, "ls", "list the models", "", [&context]() -> Result<void> {
        return print_list(context, context.client.get("/api/models"), "models", [](simdjson::dom::array models) {
            Table table({"NAME", "ENGINE", "ALIASES", "ADAPTERS", "IDLE", "PATH"});
            for (const simdjson::dom::element model : models) {
                const int64_t idle = Answer::number(model, "idle_ms");
                table.add({std::string(Answer::text(model, "name")), std::string(Answer::text(model, "engine")),
                           Answer::joined(model, "aliases"), fmt::format("{}", fmt::join(adapters_of(model), ", ")),
                           idle == 0 ? "never" : format_duration(std::chrono::milliseconds(idle)),
                           std::string(Answer::text(model, "path"))});
            }
            table.print();
        });
    });
    add_json(list, context);

    static std::string name;
    add_verb(*group, context, "rm", "remove a model; its weights stay", "  torpor model rm smollm2",
             [&context]() -> Result<void> {
                 auto removed = context.client.remove("/api/models/" + escape_path(name));
                 if (!removed) return Failure(removed.error());
                 print_line(name + " is removed");
                 return {};
             })
        ->add_option(model_argument, name, "its name")
        ->required();
}

}  // namespace torpor::cli
