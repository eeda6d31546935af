// torpor deploy: a model's file becomes a model that is known to answer, to sleep and to wake.
#include "base/fd.hh"
#include "base/json.hh"
#include "base/text.hh"
#include "clients/cli/output.hh"
#include "clients/cli/verbs.hh"

#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <optional>

namespace torpor::cli {

namespace {

constexpr size_t file_bytes_max = 256 * 1024;  // as torpord has it

struct Arguments {
    std::string file;
    bool dry = false;
};

// A word as a shell takes it unchanged.
std::string quoted(std::string_view word) {
    constexpr std::string_view plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:=,@%+";
    if (!word.empty() && word.find_first_not_of(plain) == std::string_view::npos) return std::string(word);
    std::string out = "'";
    for (const char c : word) c == '\'' ? out += "'\\''" : out += c;
    return out + "'";
}

std::string milliseconds(simdjson::dom::element object, std::string_view key) {
    double ms = 0;
    if (object[key].get(ms) != simdjson::SUCCESS) return "?";
    return ms < 10'000 ? fmt::format("{:.0f} ms", ms) : fmt::format("{:.1f} s", ms / 1000);
}

Result<std::string> body_of(const Arguments& arguments) {
    const auto file = std::filesystem::absolute(arguments.file).lexically_normal();
    if (file.extension() != ".toml") {
        return fail(Kind::invalid, "{} is no .toml file; the name of the file without .toml is the model's name", arguments.file);
    }
    auto text = read_file(file, file_bytes_max);
    if (!text) return Failure(text.error());
    JsonWriter json;
    json.begin_object().member("name", file.stem().string()).member("text", *text).member("file", file.string());
    return json.member("dry_run", arguments.dry).end_object().take();
}

void print_plan(simdjson::dom::element plan) {
    const auto action = Answer::text(plan, "action");
    const auto name = Answer::text(plan, "name");
    print_line(action == "none" ? fmt::format("{} is deployed already, just so; it would be frozen and woken once", name)
                                : fmt::format("would {} {}, as {}", action, name, Answer::text(plan, "file")));
    for (const simdjson::dom::element file : Answer::list(plan, "files")) {
        print_line(fmt::format("reads      {} ({})", Answer::text(file, "path"), format_bytes(static_cast<uint64_t>(Answer::number(file, "bytes")))));
    }
    std::string command;
    for (const simdjson::dom::element part : Answer::list(plan, "command_line")) {
        std::string_view text;
        if (part.get(text) == simdjson::SUCCESS) command += " " + quoted(text);
    }
    print_line("runs      " + command);
    const auto why = Answer::text(plan, "why_no_snapshot");
    print_line(why.empty() ? "snapshot   once it has answered" : fmt::format("snapshot   none: {}", why));
    print_line("Nothing has changed.");
}

void print_done(simdjson::dom::element done) {
    print_line(fmt::format("{} is deployed: {} start {}, first answer {}", Answer::text(done, "name"), Answer::text(done, "start"),
                           milliseconds(done, "start_ms"), milliseconds(done, "answer_ms")));
    const auto why = Answer::text(done, "why_no_snapshot");
    if (why.empty()) {
        print_line(fmt::format("next wake  {}, measured, from a snapshot of {}", milliseconds(done, "wake_ms"),
                               format_bytes(static_cast<uint64_t>(Answer::number(done, "snapshot_bytes")))));
    } else {
        print_line(fmt::format("next wake  {}, a cold start; there is no snapshot: {}", milliseconds(done, "wake_ms"), why));
    }
    if (const auto tcp = Answer::text(done, "tcp"); !tcp.empty()) {
        print_line(fmt::format("endpoint   {}{} with a key (torpor key add NAME), or torpor.sock without", tcp, Answer::text(done, "path")));
    } else {
        print_line(fmt::format("endpoint   {} on torpor.sock", Answer::text(done, "path")));
    }
    print_line(fmt::format("try it     curl --unix-socket {} http://torpor{} -d {}", quoted(Answer::text(done, "socket")),
                           Answer::text(done, "path"), quoted(Answer::text(done, "body"))));
}

// Reads the lines that torpord sends; the last one is the outcome.
class Lines {
  public:
    bool take(std::string_view bytes) {
        pending_ += bytes;
        for (size_t end; (end = pending_.find('\n')) != std::string::npos; pending_.erase(0, end + 1)) take_line(pending_.substr(0, end));
        return true;
    }
    void end() { progress_.reset(); }
    // `done`, or why not.
    Result<Answer> outcome() {
        if (!last_) return fail(Kind::unavailable, "torpord's answer broke off; torpor ps shows what came of it");
        simdjson::dom::element error;
        if (last_->root()["error"].get(error) != simdjson::SUCCESS) return std::move(*last_);
        return Failure(Error{row_of_answer(Answer::text(error, "kind"), 500).kind, std::string(Answer::text(error, "message")),
                             std::string(Answer::text(error, "cause"))});
    }

  private:
    void take_line(std::string text) {
        auto line = Answer::parse(std::move(text));
        if (!line) return;
        const auto step = Answer::text(line->root(), "step");
        progress_.reset();
        if (step.empty()) {
            last_ = std::move(*line);
        } else {
            progress_.emplace(fmt::format("{} …", step), true);
        }
    }

    std::string pending_;
    std::optional<Progress> progress_;
    std::optional<Answer> last_;
};

Result<void> deploy(Context& context, const Arguments& arguments) {
    auto body = body_of(arguments);
    if (!body) return Failure(body.error());
    if (arguments.dry) {
        auto plan = context.client.post("/api/deploy", *body);
        if (!plan) return Failure(plan.error());
        context.json ? (void)print_line(simdjson::minify(plan->root())) : print_plan(plan->root());
        return {};
    }
    Lines lines;
    context.client.end_sending_on_interrupt();
    auto streamed = context.client.stream("POST", "/api/deploy", *body, [&lines](std::string_view piece) { return lines.take(piece); });
    lines.end();
    if (!streamed) return Failure(streamed.error());
    auto outcome = lines.outcome();
    if (!outcome) return Failure(outcome.error());
    simdjson::dom::element done;
    if (outcome->root()["done"].get(done) != simdjson::SUCCESS) return fail(Kind::internal, "torpord's last line is not understood");
    context.json ? (void)print_line(simdjson::minify(done)) : print_done(done);
    return {};
}

}  // namespace

void add_deploy(CLI::App& app, Context& context) {
    static Arguments arguments;
    CLI::App* verb = add_verb(app, context, "deploy", "install a model's file once its model is seen to answer, sleep and wake",
                              "  torpor deploy coder.toml             the model is called coder\n"
                              "  torpor deploy coder.toml --dry-run   what it would do, and the engine's command line",
                              [&context] { return deploy(context, arguments); });
    verb->add_option("FILE", arguments.file, "the file, NAME.toml; paths in it are relative to it")->required();
    verb->add_flag("--dry-run", arguments.dry, "check the file and say what would be done; change nothing");
    add_json(verb, context);
}

}  // namespace torpor::cli
