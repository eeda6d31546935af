#include "base/json.hh"
#include "clients/cli/output.hh"
#include "clients/cli/verbs.hh"

namespace torpor::cli {

void add_key_verbs(CLI::App& app, Context& context) {
    CLI::App* group = app.add_subcommand("key", "keys for clients that come over TCP");
    group->require_subcommand(1);
    static std::string name, scope;

    CLI::App* add = add_verb(*group, context, "add", "make a key and print it, this once",
                             "  export OPENAI_API_KEY=$(torpor key add laptop)\n  torpor key add ops --scope admin",
                             [&context]() -> Result<void> {
                                 JsonWriter json;
                                 json.begin_object().member("name", name).member("scope", scope).end_object();
                                 auto added = context.client.post("/api/keys", json.text());
                                 if (!added) return Failure(added.error());
                                 print_line(Answer::text(added->root(), "key"));
                                 std::fputs("torpor: keep it: only its hash is stored, and it is not shown again\n", stderr);
                                 return {};
                             });
    add->add_option("NAME", name, "whose it is, for torpor key ls")->required();
    add->add_option("--scope", scope, "models, sessions or admin")->default_val("models");

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
