#include "base/json.hh"
#include "clients/cli/output.hh"
#include "clients/cli/verbs.hh"

namespace torpor::cli {

void add_key_verbs(CLI::App& app, Context& context) {
    CLI::App* group = app.add_subcommand("key", "keys for clients that come over TCP");
    group->require_subcommand(1);
    static std::string name, scope;
    static uint32_t requests_per_minute = 0, concurrent = 0;
    static std::vector<std::string> models;

    CLI::App* add = add_verb(*group, context, "add", "make a key and print it, this once",
                             "  export OPENAI_API_KEY=$(torpor key add laptop)\n  torpor key add ops --scope admin\n"
                             "  torpor key add guest --models smollm2 --requests-per-minute 20 --concurrent 2",
                             [&context]() -> Result<void> {
                                 JsonWriter json;
                                 json.begin_object().member("name", name).member("scope", scope);
                                 json.member("requests_per_minute", requests_per_minute).member("concurrent", concurrent);
                                 json.key("models").begin_array();
                                 for (const std::string& model : models) json.value(model);
                                 json.end_array().end_object();
                                 auto added = context.client.post("/api/keys", json.text());
                                 if (!added) return Failure(added.error());
                                 print_line(Answer::text(added->root(), "key"));
                                 std::fputs("torpor: keep it: only its hash is stored, and it is not shown again\n", stderr);
                                 return {};
                             });
    add->add_option("NAME", name, "whose it is, for torpor key ls")->required();
    add->add_option("--scope", scope, "models, sessions or admin")->default_val("models");
    add->add_option("--requests-per-minute", requests_per_minute, "how often it may ask; 0: as often as it likes");
    add->add_option("--concurrent", concurrent, "requests at once; 0: config.toml's requests_per_key");
    add->add_option("--models", models, "the models that it may use, by comma; all if not given")->delimiter(',');

    CLI::App* list = add_verb(*group, context, "ls", "list the keys", "", [&context]() -> Result<void> {
        return print_list(context, context.client.get("/api/keys"), "keys", [](simdjson::dom::array keys) {
            Table table({"NAME", "SCOPE", "KEY", "MADE", "LAST USED"});
            for (const simdjson::dom::element key : keys) {
                table.add({std::string(Answer::text(key, "name")), std::string(Answer::text(key, "scope")),
                           fmt::format("{}...", Answer::text(key, "prefix")), ago(Answer::number(key, "created_at_ms")),
                           ago(Answer::number(key, "last_used_at_ms"))});
            }
            table.print();
        });
    });
    add_json(list, context);

    add_verb(*group, context, "rm", "remove a key; it stops working at once", "  torpor key rm laptop",
             [&context]() -> Result<void> {
                 auto removed = context.client.remove("/api/keys/" + escape_path(name));
                 if (!removed) return Failure(removed.error());
                 print_line("the key " + name + " is removed");
                 return {};
             })
        ->add_option("NAME", name, "its name")
        ->required();
}

}  // namespace torpor::cli
