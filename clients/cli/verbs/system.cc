// reload, doctor, version.
#include "clients/cli/output.hh"
#include "clients/cli/verbs.hh"

namespace torpor::cli {

namespace {

Result<void> reload(Context& context) {
    auto done = context.client.post("/api/reload");
    if (!done) return Failure(done.error());
    print_line(fmt::format("reloaded; models: {}", Answer::number(done->root(), "models")));
    return {};
}

// What root can do about it, ready to be typed.
void print_remedy(const simdjson::dom::element& check) {
    const std::string_view command = Answer::text(check, "command");
    if (command.empty()) return;
    print_line(fmt::format("\n{}: this once, then `torpor daemon restart`, mends it:\n\n  {}\n\n{}", Answer::text(check, "name"), command,
                           Answer::text(check, "gives")));
}

Result<void> doctor(Context& context) {
    auto answer = context.client.get("/api/doctor");
    bool all_well = true;
    auto printed = print_list(context, answer, "checks", [](simdjson::dom::array checks) {
        Table table({"CHECK", "STATE", "WHAT WAS FOUND"});
        for (const simdjson::dom::element check : checks) {
            table.add({std::string(Answer::text(check, "name")), Answer::truth(check, "ok") ? "ok" : "NOT OK",
                       std::string(Answer::text(check, "message"))});
        }
        table.print();
        for (const simdjson::dom::element check : checks) print_remedy(check);
    });
    if (!printed) return printed;
    for (const simdjson::dom::element check : Answer::list(answer->root(), "checks")) all_well &= Answer::truth(check, "ok");
    if (!all_well) return fail(Kind::unavailable, "something needs attention; what is not ok is said above");
    return {};
}

Result<void> version(Context& context) {
    auto answer = context.client.get("/api/version");
    if (!answer) return Failure(answer.error());
    if (context.json) {
        print_line(simdjson::minify(answer->root()));
        return {};
    }
    print_line("torpor " TORPOR_VERSION);
    std::string line = fmt::format("torpord {} (pid {})", Answer::text(answer->root(), "version"), Answer::number(answer->root(), "pid"));
    simdjson::dom::object components;
    if (answer->root()["components"].get(components) == simdjson::SUCCESS) {
        const char* before = ": ";
        for (const auto [name, value] : components) {
            std::string_view text;
            if (value.get(text) != simdjson::SUCCESS) continue;
            line += fmt::format("{}{} {}", before, name, text);
            before = ", ";
        }
    }
    print_line(line);
    return {};
}

}  // namespace

void add_system_verbs(CLI::App& app, Context& context) {
    add_verb(app, context, "reload", "read config.toml and models/ again", "", [&context] { return reload(context); });
    add_json(add_verb(app, context, "doctor", "check that everything works, and say what does not", "",
                      [&context] { return doctor(context); }),
             context);
    add_json(add_verb(app, context, "version", "print the versions of torpor, torpord and its libraries", "",
                      [&context] { return version(context); }),
             context);
}

}  // namespace torpor::cli
