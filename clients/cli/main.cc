// torpor: reads the command line, runs one verb, and turns its error into words and an exit status.
#include "base/text.hh"
#include "clients/cli/verbs.hh"

#include <unistd.h>

#include <algorithm>
#include <cstdio>

namespace torpor::cli {
namespace {

constexpr int wrong_usage = 2;

int complain(const std::string& text, int status) {
    std::fprintf(stderr, "torpor: %s\n", text.c_str());
    return status;
}

// The verb as deep as the words lead: `torpor model add` is add's.
const CLI::App* innermost(const CLI::App& app, const std::vector<std::string>& words) {
    const CLI::App* found = &app;
    for (const std::string& word : words) {
        const auto below = found->get_subcommands([&](const CLI::App* verb) { return verb->check_name(word); });
        if (!below.empty()) found = below[0];
    }
    return found;
}

std::vector<std::string> names_of_verbs(const CLI::App& app) {
    std::vector<std::string> names;
    for (const CLI::App* verb : app.get_subcommands([](const CLI::App* candidate) { return !candidate->get_group().empty(); })) {
        names.push_back(verb->get_name());
    }
    return names;
}

// What to say of a command line that CLI11 refuses, with the name that was probably meant.
std::string explain(const CLI::App& app, const CLI::ParseError& error, const std::vector<std::string>& words) {
    const CLI::App* verb = innermost(app, words);
    const auto names = names_of_verbs(*verb);
    if (!names.empty()) {
        const std::string where = verb == &app ? "torpor" : "torpor " + verb->get_name();
        const auto unknown = std::ranges::find_if(words, [&](const std::string& word) {
            return !word.starts_with('-') && innermost(app, {word}) == &app && word != verb->get_name();
        });
        if (unknown == words.end()) return fmt::format("{} needs one of: {}", where, fmt::join(names, ", "));
        return fmt::format("{} has no verb '{}'{} ({} --help lists them)", where, *unknown, did_you_mean(*unknown, names), where);
    }
    for (const std::string& word : words) {
        if (!word.starts_with("--")) continue;
        std::vector<std::string> options;
        for (const CLI::Option* option : verb->get_options()) {
            for (const std::string& name : option->get_lnames()) options.push_back("--" + name);
        }
        const std::string name = word.substr(0, word.find('='));
        if (std::ranges::find(options, name) == options.end()) {
            return fmt::format("{} has no option {}{} (see torpor {} --help)", verb->get_name(), name,
                               did_you_mean(name, options), verb->get_name());
        }
    }
    return std::string(error.what());
}

// The word of the documentation, in the help too.
void call_them_verbs(CLI::App& app) {
    app.get_formatter()->label("SUBCOMMAND", "VERB");
    for (CLI::App* verb : app.get_subcommands([](CLI::App*) { return true; })) {
        if (!verb->get_group().empty()) verb->group("Verbs");
        call_them_verbs(*verb);
    }
}

int run(int argc, char** argv) {
    std::vector<std::string> words(argv + 1, argv + argc);
    auto folders = Folders::from_environment();
    if (!folders) return complain(folders.error().text(), 1);
    Client client(*folders);
    Context context{client, {}, false, 0, {}};
    if (const auto dashes = std::ranges::find(words, "--"); dashes != words.end()) {
        context.after_dashes.assign(dashes + 1, words.end());
        words.erase(dashes, words.end());
    }

    CLI::App app("Runs local models, puts idle ones to sleep, and wakes them on demand.", "torpor");
    app.set_version_flag("--version", "torpor " TORPOR_VERSION);
    app.require_subcommand(1);
    add_verbs(app, context);
    call_them_verbs(app);
    app.footer("Examples:\n"
               "  torpor model add smollm2 --path smollm2.gguf     give a model a name\n"
               "  torpor ask smollm2 \"What is a torpor?\"           wake it and ask it\n"
               "  torpor ps                                        see what runs and what sleeps\n"
               "\nAny verb starts the daemon if none runs. `torpor VERB --help` shows examples.\n"
               "Exit status: 0 done, 1 failed, 2 wrong usage, 3 no daemon, 4 refused.");
    if (words.empty() && (::isatty(STDIN_FILENO) == 0 || ::isatty(STDOUT_FILENO) == 0)) {
        std::fputs(app.help().c_str(), stderr);
        return wrong_usage;
    }
    // `torpor` and `torpor -c` are for talking.
    if (words.empty() || words[0] == "-c" || words[0] == "--continue") words.insert(words.begin(), "chat");
    try {
        app.parse(std::vector<std::string>(words.rbegin(), words.rend()));  // CLI11 takes them from the back
    } catch (const CLI::ParseError& error) {
        if (error.get_exit_code() == 0) return app.exit(error);  // --help, --version
        return complain(explain(app, error, words), wrong_usage);
    }
    auto done = context.run();
    if (std::fflush(stdout) != 0 && done) return complain("standard output cannot be written", 1);
    return done ? context.exit_status : complain(done.error().text(), row_of(done.error().kind).exit_status);
}

}  // namespace
}  // namespace torpor::cli

int main(int argc, char** argv) {
    return torpor::cli::run(argc, argv);
}
