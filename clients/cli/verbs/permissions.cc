// torpor permissions and torpor trust: what agents may do without a question, beforehand and for good.
#include "base/json.hh"
#include "clients/cli/output.hh"
#include "clients/cli/sanitise.hh"
#include "clients/cli/verbs.hh"

#include <unistd.h>

#include <cstdio>
#include <filesystem>

namespace torpor::cli {

namespace {

std::string absolute(const std::string& folder) {
    std::error_code failed;
    const auto real = std::filesystem::weakly_canonical(folder.empty() ? "." : folder, failed);
    return failed ? folder : real.string();
}

std::string permissions_of(const std::string& folder) {
    return "/api/permissions?folder=" + escape_path(folder);
}

void add_rows(Table& table, simdjson::dom::array rules) {
    for (const simdjson::dom::element rule : rules) {
        const int64_t id = Answer::number(rule, "id");
        table.add({id == 0 ? "-" : fmt::format("{}", id), std::string(Answer::text(rule, "decision")), sanitise(std::string(Answer::text(rule, "rule"))),
                   id == 0 ? sanitise(std::string(Answer::text(rule, "by"))) : sanitise(fmt::format("{} in {}", Answer::text(rule, "by"), Answer::text(rule, "folder")))});
    }
}

Result<void> list(Context& context, const std::string& folder, bool all) {
    auto answer = context.client.get(all ? "/api/permissions" : permissions_of(absolute(folder)));
    if (!answer) return Failure(answer.error());
    if (context.json) {
        print_line(simdjson::minify(answer->root()));
        return {};
    }
    Table table({"ID", "DECISION", "RULE", "BY"});
    add_rows(table, Answer::list(answer->root(), "permissions"));
    simdjson::dom::element settings;
    const bool has_settings = !answer->root()["settings"].get(settings);
    if (has_settings) add_rows(table, Answer::list(settings, "rules"));
    table.print();
    if (!has_settings) return {};
    for (const simdjson::dom::element problem : Answer::list(settings, "problems")) {
        std::string_view text;
        if (!problem.get(text)) std::fputs(sanitise(fmt::format("torpor: {}\n", text)).c_str(), stderr);
    }
    if (Answer::list(settings, "untrusted").size() > 0) {
        std::fputs("torpor: what this project's settings allow does not count: torpor trust shows it, and asks\n", stderr);
    }
    return {};
}

Result<bool> ask(bool is_sure) {
    if (is_sure) return true;
    if (::isatty(STDIN_FILENO) == 0) return fail(Kind::invalid, "there is no terminal to ask on; --yes says that you looked at it");
    std::fputs("Trust it, as it is now? [y/N] ", stderr);
    const int answer = std::getchar();
    return answer == 'y' || answer == 'Y';
}

Result<void> trust(Context& context, const std::string& folder, bool is_sure) {
    const std::string path = absolute(folder);
    auto answer = context.client.get(permissions_of(path));
    if (!answer) return Failure(answer.error());
    simdjson::dom::element settings;
    if (answer->root()["settings"].get(settings)) return fail(Kind::internal, "torpord does not tell of settings; it is another version: torpor daemon restart");
    const std::string project(Answer::text(settings, "project"));
    if (project.empty()) return fail(Kind::not_found, "there are no settings in {} (.torpor/settings.toml) to trust", path);
    for (const simdjson::dom::element file : Answer::list(settings, "files")) {
        print_line(sanitise(fmt::format("--- {}\n{}", Answer::text(file, "path"), Answer::text(file, "text"))));
    }
    bool is_trusted = false;
    if (!settings["is_trusted"].get(is_trusted) && is_trusted) {
        print_line(sanitise(project) + " is trusted with these");
        return {};
    }
    auto sure = ask(is_sure);
    if (!sure) return Failure(sure.error());
    if (!*sure) return fail(Kind::refused, "nothing was changed");
    JsonWriter json;
    json.begin_object().member("folder", path).member("hash", Answer::text(settings, "hash")).end_object();
    auto done = context.client.post("/api/trust", json.text());
    if (!done) return Failure(done.error());
    print_line(sanitise(project) + " is trusted until its settings change");
    return {};
}

}  // namespace

void add_permission_verbs(CLI::App& app, Context& context) {
    static std::string folder, rule, decision = "allow";
    static int64_t id = 0;
    static bool all = false, is_sure = false, is_revoked = false;
    CLI::App* group = app.add_subcommand("permissions", "what agents may do without a question, and what never");
    group->require_subcommand(1);
    CLI::App* ls = add_verb(*group, context, "ls", "the rules of this folder: those that people gave, and those of settings",
                            "  torpor permissions ls\n  torpor permissions ls --all", [&context] { return list(context, folder, all); });
    ls->add_option("FOLDER", folder, "another folder");
    ls->add_flag("--all", all, "those that people gave, for all folders");
    add_json(ls, context);
    CLI::App* add = add_verb(*group, context, "add", "give a rule for this folder",
                             "  torpor permissions add 'bash(make:*)'\n  torpor permissions add 'bash(git push:*)' --decision deny",
                             [&context]() -> Result<void> {
                                 JsonWriter json;
                                 json.begin_object().member("folder", absolute(folder)).member("rule", rule).member("decision", decision).end_object();
                                 auto done = context.client.post("/api/permissions", json.text());
                                 return done ? Result<void>() : Failure(done.error());
                             });
    add->add_option("RULE", rule, "tool, 'tool(exact)' or 'tool(prefix:*)'")->required();
    add->add_option("--decision", decision, "allow, ask or deny")->check(CLI::IsMember(std::vector<std::string>{"allow", "ask", "deny"}));
    add->add_option("--folder", folder, "another folder");
    add_verb(*group, context, "rm", "take a rule back that somebody gave", "  torpor permissions rm 3",
             [&context]() -> Result<void> {
                 auto removed = context.client.remove(fmt::format("/api/permissions/{}", id));
                 return removed ? Result<void>() : Failure(removed.error());
             })
        ->add_option("ID", id, "its number, from torpor permissions ls")
        ->required();
    CLI::App* verb = add_verb(app, context, "trust", "let this project's settings allow things, after a look at them",
                              "  torpor trust\n  torpor trust ~/src/mine --yes\n  torpor trust --revoke",
                              [&context]() -> Result<void> {
                                  if (!is_revoked) return trust(context, folder, is_sure);
                                  auto done = context.client.remove("/api/trust?folder=" + escape_path(absolute(folder)));
                                  return done ? Result<void>() : Failure(done.error());
                              });
    verb->add_option("FOLDER", folder, "another folder");
    verb->add_flag("--yes", is_sure, "do not ask: I looked at it");
    verb->add_flag("--revoke", is_revoked, "trust it no more");
}

}  // namespace torpor::cli
