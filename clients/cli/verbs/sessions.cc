// torpor sessions: what agents did, and what of it to keep.
#include "base/json.hh"
#include "base/text.hh"
#include "clients/cli/output.hh"
#include "clients/cli/session.hh"
#include "clients/cli/standard_input.hh"
#include "clients/cli/verbs.hh"

#include "base/fd.hh"

#include <cstdio>
#include <filesystem>
#include <fstream>

namespace torpor::cli {

namespace {

constexpr size_t import_bytes_max = 64 * 1024 * 1024;  // what the daemon takes
constexpr size_t id_characters_shown = 14;             // the time and some of the rest: enough to tell two apart

void print_sessions(simdjson::dom::array sessions) {
    Table table({"SESSION", "STATE", "MODEL", "EVENTS", "USED", "FOLDER", "TITLE"});
    for (const simdjson::dom::element session : sessions) {
        std::string title(Answer::text(session, "title"));
        if (const auto excerpt = Answer::text(session, "excerpt"); !excerpt.empty()) title = excerpt;
        for (char& c : title) c = c == '\n' || c == '\t' ? ' ' : c;
        table.add({std::string(Answer::text(session, "id").substr(0, id_characters_shown)), std::string(Answer::text(session, "state")),
                   sanitise(Answer::text(session, "model")), std::to_string(Answer::number(session, "events")), ago(Answer::number(session, "updated_at_ms")),
                   sanitise(Answer::text(session, "folder")), sanitise(title)});
    }
    table.print();
    if (sessions.size() == 0) std::fputs("there is no such session; torpor run \"...\" makes one\n", stderr);
}

// Into standard output, piece by piece.
Result<void> print_export(Context& context, const std::string& beginning, const std::string& format, bool is_shown) {
    auto id = complete_session(context.client, beginning);
    if (!id) return Failure(id.error());
    Sanitiser sanitiser;
    const bool is_terminal = is_shown || ::isatty(STDOUT_FILENO) != 0;
    auto streamed = context.client.stream("GET", fmt::format("/api/sessions/{}/export?format={}", *id, format), "", [&](std::string_view piece) {
        const std::string shown = is_terminal ? sanitiser.take(piece) : std::string(piece);
        return std::fwrite(shown.data(), 1, shown.size(), stdout) == shown.size();
    });
    if (!streamed) return Failure(streamed.error());
    return {};
}

Result<void> import_file(Context& context, const std::string& file) {
    auto text = file == "-" ? read_standard_input() : read_file(file, import_bytes_max);
    if (!text) return Failure(text.error());
    auto made = context.client.post("/api/sessions/import", *text);
    if (!made) return Failure(made.error());
    print_line(Answer::text(made->root(), "id"));
    return {};
}

Result<void> change(Context& context, const std::string& beginning, const std::string& verb, const std::string& body, const std::string& said) {
    auto id = complete_session(context.client, beginning);
    if (!id) return Failure(id.error());
    auto done = verb.empty() ? context.client.remove("/api/sessions/" + *id) : context.client.post("/api/sessions/" + *id + "/" + verb, body);
    if (!done) return Failure(done.error());
    print_line(verb == "fork" ? std::string(Answer::text(done->root(), "id")) : fmt::format("{} is {}", *id, said));
    return {};
}

}  // namespace

void add_session_verbs(CLI::App& app, Context& context) {
    CLI::App* group = app.add_subcommand("sessions", "what agents did: list, search, export and remove");
    group->require_subcommand(1);
    static std::string id, text, folder, format = "jsonl", title;
    static bool with_archived = false;
    static int64_t at = 0;
    const auto list = [&context]() -> Result<void> {
        const std::string place = folder.empty() ? folder : std::filesystem::absolute(folder).lexically_normal().string();
        return print_list(context, context.client.get(fmt::format("/api/sessions?text={}&folder={}&archived={}", escape_path(text), escape_path(place), with_archived)),
                          "sessions", print_sessions);
    };
    CLI::App* ls = add_verb(*group, context, "ls", "list the sessions, the last used first", "  torpor sessions ls\n  torpor sessions ls --folder .", list);
    ls->add_option("--folder", folder, "those in this folder and below");
    ls->add_flag("--archived", with_archived, "archived ones, too");
    add_json(ls, context);
    CLI::App* search = add_verb(*group, context, "search", "sessions in which these words were said", "  torpor sessions search \"flaky test\"", list);
    search->add_option("WORDS", text, "all of them, in one message")->required();
    search->add_flag("--archived", with_archived, "archived ones, too");
    add_json(search, context);

    const auto named = [](CLI::App* verb) {
        verb->add_option("SESSION", id, "its id, or the beginning of it")->required();
        return verb;
    };
    named(add_verb(*group, context, "show", "print a session", "  torpor sessions show 01kaxw", [&context] { return print_export(context, id, "md", true); }));
    CLI::App* out = named(add_verb(*group, context, "export", "write a session to standard output",
                                   "  torpor sessions export 01kaxw > notes.jsonl\n  torpor sessions export 01kaxw --format md",
                                   [&context] { return print_export(context, id, format, false); }));
    out->add_option("--format", format, "jsonl, which can be imported; md, for people")->check(CLI::IsMember(std::vector<std::string>{"jsonl", "md"}));
    add_verb(*group, context, "import", "make a session of an exported one", "  torpor sessions import notes.jsonl", [&context] { return import_file(context, text); })
        ->add_option("FILE", text, "the file; - for standard input")
        ->required();
    named(add_verb(*group, context, "rm", "remove a session for good", "", [&context] { return change(context, id, "", "", "removed"); }));
    named(add_verb(*group, context, "archive", "keep it, but not in the list", "",
                   [&context] { return change(context, id, "set", R"({"archived":true})", "archived"); }));
    CLI::App* rename = named(add_verb(*group, context, "rename", "give it another title", "", [&context] {
        JsonWriter json;
        return change(context, id, "set", json.begin_object().member("title", title).end_object().text(), "renamed");
    }));
    rename->add_option("TITLE", title, "the title")->required();
    CLI::App* fork = named(add_verb(*group, context, "fork", "another session that begins like this one", "  torpor sessions fork 01kaxw --at 42",
                                    [&context] { return change(context, id, "fork", at > 0 ? fmt::format(R"({{"at":{}}})", at) : "{}", ""); }));
    fork->add_option("--at", at, "up to this event; all of them by default");
}

}  // namespace torpor::cli
