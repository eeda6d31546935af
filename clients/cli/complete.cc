// Completions: `torpor completions SHELL` prints a script that asks `torpor complete` what could come next.
#include "clients/cli/autostart.hh"
#include "clients/cli/output.hh"
#include "clients/cli/verbs.hh"

namespace torpor::cli {

namespace {

constexpr std::string_view bash_script =
    "# bash completion for torpor; `torpor completions bash` prints this.\n"
    "_torpor() {\n"
    "    local IFS=$'\\n'\n"
    "    COMPREPLY=($(compgen -W \"$(torpor complete -- \"${COMP_WORDS[@]:1:COMP_CWORD}\" 2>/dev/null)\" -- "
    "\"${COMP_WORDS[COMP_CWORD]}\"))\n"
    "}\n"
    "complete -o default -F _torpor torpor";

constexpr std::string_view zsh_script =
    "#compdef torpor\n"
    "# zsh completion for torpor; `torpor completions zsh` prints this.\n"
    "_torpor() {\n"
    "    local -a found\n"
    "    found=(${(f)\"$(torpor complete -- \"${(@)words[2,CURRENT]}\" 2>/dev/null)\"})\n"
    "    if (( $#found )); then compadd -a found; else _files; fi\n"
    "}\n"
    "compdef _torpor torpor";

constexpr std::string_view fish_script =
    "# fish completion for torpor; `torpor completions fish` prints this.\n"
    "complete -c torpor -a '(torpor complete -- (commandline -opc)[2..-1] (commandline -ct) 2>/dev/null)'";

// Verbs and options below `app`, or the models where the verb takes one. Never starts the daemon.
void print_candidates(const CLI::App& app, Context& context) {
    const CLI::App* verb = &app;
    const auto& words = context.after_dashes;
    for (size_t i = 0; i + 1 < words.size(); ++i) {
        const auto below = verb->get_subcommands([&](const CLI::App* candidate) { return candidate->check_name(words[i]); });
        if (!below.empty()) verb = below[0];
    }
    for (const CLI::App* candidate : verb->get_subcommands([](const CLI::App*) { return true; })) {
        if (!candidate->get_group().empty()) print_line(candidate->get_name());
    }
    const bool wants_option = !words.empty() && words.back().starts_with('-');
    for (const CLI::Option* option : verb->get_options()) {
        for (const std::string& name : option->get_lnames()) {
            if (wants_option) print_line("--" + name);
        }
        if (wants_option || option->get_name() != model_argument || !is_running(context.client.folders())) continue;
        context.client.set_autostart(false);
        auto models = context.client.get("/api/models");
        if (!models) continue;
        for (const simdjson::dom::element model : Answer::list(models->root(), "models")) {
            print_line(Answer::text(model, "name"));
            for (const std::string& adapter : adapters_of(model)) print_line(adapter);
        }
    }
}

}  // namespace

void add_completion_verbs(CLI::App& app, Context& context) {
    static std::string shell;
    CLI::App* completions = add_verb(app, context, "completions", "print completions for your shell",
                                     "  torpor completions bash > ~/.local/share/bash-completion/completions/torpor\n"
                                     "  torpor completions fish > ~/.config/fish/completions/torpor.fish",
                                     []() -> Result<void> {
                                         print_line(shell == "bash" ? bash_script : shell == "zsh" ? zsh_script : fish_script);
                                         return {};
                                     });
    completions->add_option("SHELL", shell, "bash, zsh or fish")
        ->required()
        ->check(CLI::IsMember(std::vector<std::string>{"bash", "zsh", "fish"}));
    add_verb(app, context, "complete", "", "", [&app, &context]() -> Result<void> {
        print_candidates(app, context);
        return {};
    })->group("");
}

}  // namespace torpor::cli
