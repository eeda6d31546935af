#include "clients/cli/slash.hh"

#include "base/json.hh"
#include "base/text.hh"
#include "clients/cli/output.hh"
#include "clients/cli/sanitise.hh"

#include <array>
#include <vector>

namespace torpor::cli {

namespace {

struct Call {
    Client& client;
    const std::string& session;
    const std::string& words;
};

struct Slash {
    std::string_view name, help;
    bool (*run)(const Call& call);
};

std::string path_of(const Call& call, std::string_view verb) {
    return "/api/sessions/" + call.session + std::string(verb);
}

void say(const Result<Answer>& done, const std::string& text) {
    print_line(sanitise(done ? text : done.error().text()));
}

bool set(const Call& call, std::string_view key, std::string_view what) {
    if (call.words.empty()) {
        auto row = call.client.get(path_of(call, ""));
        say(row, row ? std::string(Answer::text(row->root(), key)) : "");
        return true;
    }
    JsonWriter json;
    say(call.client.post(path_of(call, "/set"), json.begin_object().member(key, call.words).end_object().text()), fmt::format("{} is {} now", what, call.words));
    return true;
}

bool status(const Call& call) {
    auto row = call.client.get(path_of(call, ""));
    say(row, row ? fmt::format("{} ({})\n{}\n{}, {}; {} events", call.session, Answer::text(row->root(), "state"), Answer::text(row->root(), "folder"),
                               Answer::text(row->root(), "model"), Answer::text(row->root(), "mode"), Answer::number(row->root(), "events"))
                 : "");
    return true;
}

bool steer(const Call& call) {
    JsonWriter json;
    say(call.client.post(path_of(call, "/steer"), json.begin_object().member("text", call.words).end_object().text()), "it reads that before its next answer");
    return true;
}

bool help(const Call& call);

constexpr std::array table{
    Slash{"help", "this list", help},
    Slash{"model", "MODEL: ask this one from the next prompt on; alone: which it is", [](const Call& call) { return set(call, "model", "the model"); }},
    Slash{"mode", "read-only, workspace-write or danger-full-access; alone: which it is", [](const Call& call) { return set(call, "mode", "the mode"); }},
    Slash{"title", "TITLE: what lists call this session", [](const Call& call) { return set(call, "title", "the title"); }},
    Slash{"status", "this session", status},
    Slash{"steer", "TEXT: said to the model in the midst of its turn", steer},
    Slash{"retry", "the last turn again, if it did not end well",
          [](const Call& call) {
              say(call.client.post(path_of(call, "/retry")), "again");
              return true;
          }},
    Slash{"quit", "leave; a turn under way goes on (also Ctrl-D)", [](const Call&) { return false; }},
};

bool help(const Call&) {
    for (const Slash& slash : table) print_line(fmt::format("  /{:<8} {}", slash.name, slash.help));
    print_line("  Ctrl-C interrupts the turn; a prompt that is sent during one waits for its end");
    return true;
}

}  // namespace

bool run_slash(Client& client, const std::string& session, const std::string& line) {
    const size_t end = std::min(line.find(' '), line.size());
    const std::string name = line.substr(1, end - 1);
    std::string words = line.substr(std::min(line.find_first_not_of(' ', end), line.size()));
    while (words.ends_with(' ')) words.pop_back();
    std::vector<std::string> names;
    for (const Slash& slash : table) {
        if (slash.name == name) return slash.run({client, session, words});
        names.emplace_back(slash.name);
    }
    print_line(sanitise(fmt::format("there is no /{}{}; /help lists them", name, did_you_mean(name, names))));
    return true;
}

}  // namespace torpor::cli
