// torpor run: one prompt, and what comes of it, for people in a hurry and for scripts.
#include "base/fd.hh"
#include "base/json.hh"
#include "clients/cli/session.hh"
#include "clients/cli/output.hh"
#include "clients/cli/standard_input.hh"
#include "clients/cli/verbs.hh"

#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <thread>

namespace torpor::cli {

namespace {

struct Run {
    std::string prompt, session, schema_file;
    NewSession made;
    std::vector<std::string> allowed;
    std::string output = "text";
    bool goes_on = false;
};

constexpr size_t schema_bytes_max = 1024 * 1024;
constexpr int failed_status = 1, limit_status = 5, interrupted_status = 130;

// The first Ctrl-C ends the turn, the second this program.
class Interrupts {
  public:
    Interrupts(const Folders& folders, const std::string& id) : client_(folders), over_(::eventfd(0, EFD_CLOEXEC)) {
        sigset_t set;
        ::sigemptyset(&set);
        ::sigaddset(&set, SIGINT);
        ::pthread_sigmask(SIG_BLOCK, &set, nullptr);  // in all threads that are made from here on
        signals_ = Fd(::signalfd(-1, &set, SFD_CLOEXEC));
        thread_ = std::thread([this, id] { watch(id); });
    }
    ~Interrupts() {
        ::eventfd_write(over_.get(), 1);
        thread_.join();
    }
    Interrupts(const Interrupts&) = delete;
    Interrupts& operator=(const Interrupts&) = delete;

  private:
    void watch(const std::string& id) {
        for (bool was_asked = false;; was_asked = true) {
            pollfd waits[2] = {{signals_.get(), POLLIN, 0}, {over_.get(), POLLIN, 0}};
            if (::poll(waits, 2, -1) < 0 || waits[1].revents != 0) return;
            signalfd_siginfo info{};
            if (::read(signals_.get(), &info, sizeof info) != sizeof info) return;
            if (was_asked) ::_exit(interrupted_status);
            static_cast<void>(client_.post("/api/sessions/" + id + "/interrupt"));
        }
    }

    Client client_;
    Fd signals_, over_;
    std::thread thread_;
};

void answer_question(Client& client, const std::string& id, const SessionEvent& event, const std::vector<std::string>& allowed) {
    const bool is_allowed = is_allowed_by(allowed, Answer::text(event.data, "tool"), Answer::list(event.data, "rules"));
    JsonWriter json;
    const bool is_agents = event.kind == "agent_question";
    json.begin_object().member("question", is_agents ? Answer::number(event.data, "question") : event.seq).member("answer", is_allowed ? "once" : "no");
    if (!is_allowed) {
        json.member("message", "nobody is there to be asked, and this was not allowed beforehand");
        std::fputs(sanitise(fmt::format("torpor: not allowed: {} (--allow '{}' allows it)\n", Answer::text(event.data, "title"),
                                        Answer::joined(event.data, "rules")))
                       .c_str(),
                   stderr);
    }
    const std::string session = is_agents ? std::string(Answer::text(event.data, "session")) : id;
    static_cast<void>(client.post("/api/sessions/" + session + "/answer", json.end_object().text()));  // somebody else was faster
}

std::string result_of(const std::string& id, const std::string& said, simdjson::dom::element ended) {
    JsonWriter json;
    json.begin_object().member("session", id).member("text", said);
    simdjson::dom::object fields;
    if (ended.get(fields)) return json.end_object().take();
    for (const auto& [key, value] : fields) {
        if (key == "seq" || key == "at_ms") continue;
        json.key(key).raw(simdjson::minify(value));
    }
    return json.end_object().take();
}

void print_result(simdjson::dom::element ended) {
    simdjson::dom::element output;
    if (!ended["output"].get(output)) print_line(simdjson::minify(output));
}

int status_of(simdjson::dom::element ended) {
    const std::string_view outcome = Answer::text(ended, "outcome");
    return outcome == "done" ? 0 : outcome == "limit" ? limit_status : outcome == "interrupted" ? interrupted_status : failed_status;
}

Result<std::string> session_for(Client& client, const Run& run) {
    if (!run.session.empty()) return complete_session(client, run.session);
    if (run.goes_on) return last_session(client, run.made.folder);
    return create_session(client, run.made);
}

// Whether it is a schema is for torpord to say; that it is JSON must be known before it is put into some.
Result<std::string> schema_of(const std::string& file) {
    if (file.empty()) return std::string();
    auto text = read_file(file, schema_bytes_max);
    if (!text) return Failure(text.error());
    auto parsed = Answer::parse(*text);
    if (!parsed) return fail(Kind::invalid, "{} is no JSON", file);
    return simdjson::minify(parsed->root());
}

Result<void> run_prompt(Context& context, Run run) {
    auto input = read_standard_input();
    if (!input) return Failure(input.error());
    if (run.prompt == "-") run.prompt.clear();
    const std::string prompt = *input + (!input->empty() && !run.prompt.empty() ? "\n\n" : "") + run.prompt;
    if (prompt.empty()) return fail(Kind::invalid, "there is no prompt; torpor run \"What is in this folder?\"");
    auto schema = schema_of(run.schema_file);
    if (!schema) return Failure(schema.error());
    run.made.folder = std::filesystem::current_path().string();
    auto id = session_for(context.client, run);
    if (!id) return Failure(id.error());
    auto number = send_prompt(context.client, *id, prompt, *schema);
    if (!number) return Failure(number.error());
    const Interrupts interrupts(context.client.folders(), *id);

    const bool is_text = run.output == "text";
    // With a schema only the result is for whoever reads the output.
    SessionPrinter printer(schema->empty() ? stdout : stderr, stderr);
    std::string said;
    int64_t last = *number;
    const auto take = [&](const SessionEvent& event) {
        if (run.output == "stream-json") {
            print_line(fmt::format(R"({{"event":"{}",{})", event.kind, event.json.substr(1)));
            std::fflush(stdout);  // whoever reads it acts on it
        }
        if (event.kind == "question" || event.kind == "agent_question") answer_question(context.client, *id, event, run.allowed);
        if (Answer::number(event.data, "turn") != *number) return true;
        if (is_text) printer.take(event);
        if (event.kind == "text") said = Answer::text(event.data, "text");
        if (event.kind != "turn_ended") return true;
        if (is_text && !schema->empty()) print_result(event.data);
        if (run.output == "json") print_line(result_of(*id, said, event.data));
        context.exit_status = status_of(event.data);
        return false;
    };
    return follow_session(context.client, *id, last, take);
}

}  // namespace

void add_run(CLI::App& app, Context& context) {
    static Run run;
    CLI::App* verb = add_verb(app, context, "run", "give an agent a prompt in this folder: torpor run \"PROMPT\"",
                              "  torpor run \"What does this project do?\" --mode read-only\n"
                              "  git diff | torpor run \"Review this\" --model anthropic/claude-sonnet-4-5\n"
                              "  torpor run \"Run the tests and mend what fails\" --allow 'bash(make:*)' --allow write_file\n"
                              "  torpor run \"go on\" -c --output json\n"
                              "  torpor run \"List the functions of main.c\" --schema functions.json | jq .\n\n"
                              "Exit status: 0 done, 1 failed, 2 wrong usage, 3 no daemon, 4 refused, 5 a limit was met, 130 interrupted.",
                              [&context] { return run_prompt(context, run); });
    verb->add_option("PROMPT", run.prompt, "what to do; what a pipe gives comes before it");
    verb->add_option("--model", run.made.model, "PROVIDER/MODEL, or a model of this machine");
    verb->add_option("--mode", run.made.mode, "what it may do without a question")
        ->check(CLI::IsMember(std::vector<std::string>{"read-only", "workspace-write", "danger-full-access"}));
    verb->add_option("--allow", run.allowed, "a rule that answers questions with yes: tool, 'tool(exact)', 'tool(prefix:*)' (again for more)")->allow_extra_args(false);
    verb->add_option("--output", run.output, "text; json: one object at the end; stream-json: each event a line")
        ->check(CLI::IsMember(std::vector<std::string>{"text", "json", "stream-json"}));
    verb->add_option("--schema", run.schema_file, "a JSON Schema in this file: the result is an object that fits it, and is all that is printed");
    verb->add_flag("-c,--continue", run.goes_on, "go on with this folder's last session");
    verb->add_option("--session", run.session, "go on with this session");
}

}  // namespace torpor::cli
