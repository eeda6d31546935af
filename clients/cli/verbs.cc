#include "clients/cli/verbs.hh"

#include "clients/cli/output.hh"

namespace torpor::cli {

namespace {

constexpr AddVerb verbs[] = {
    add_ask, add_chat, add_run, add_session_verbs, add_login, add_permission_verbs, add_deploy, add_model_verbs, add_worker_verbs, add_logs, add_key_verbs, add_snapshot_verbs, add_system_verbs,
    add_daemon_verbs, add_completion_verbs,
};

}  // namespace

void add_verbs(CLI::App& app, Context& context) {
    for (const AddVerb add : verbs) add(app, context);
}

CLI::App* add_verb(CLI::App& app, Context& context, const std::string& name, const std::string& summary,
                   const std::string& examples, std::function<Result<void>()> run) {
    CLI::App* verb = app.add_subcommand(name, summary);
    if (!examples.empty()) verb->footer("Examples:\n" + examples);
    verb->callback([&context, run = std::move(run)] { context.run = run; });
    return verb;
}

void add_json(CLI::App* verb, Context& context) {
    verb->add_flag("--json", context.json, "print JSON, for programs");
}

Result<void> print_list(Context& context, const Result<Answer>& answer, std::string_view key,
                        const std::function<void(simdjson::dom::array)>& print) {
    if (!answer) return Failure(answer.error());
    const simdjson::dom::array list = Answer::list(answer->root(), key);
    if (context.json) {
        print_line(simdjson::minify(list));
    } else {
        print(list);
    }
    if (const auto error = Answer::text(answer->root(), "config_error"); !error.empty()) {
        std::fputs(fmt::format("not all of the configuration is in use: {}\n", error).c_str(), stderr);
    }
    return {};
}

}  // namespace torpor::cli
