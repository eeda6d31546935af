// torpor ask: one question to a model, the answer as it comes.
#include "base/json.hh"
#include "base/sse.hh"
#include "clients/cli/output.hh"
#include "clients/cli/standard_input.hh"
#include "clients/cli/verbs.hh"

#include <unistd.h>

#include <array>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <optional>

namespace torpor::cli {

namespace {

using Clock = std::chrono::steady_clock;


struct Question {
    std::string model, prompt, system, timing;
    int tokens_max = 0;
};

std::string body_of(const Question& question, const std::string& input) {
    JsonWriter json;
    json.begin_object().member("model", question.model).member("stream", true);
    if (question.tokens_max > 0) json.member("max_tokens", question.tokens_max);
    json.key("messages").begin_array();
    if (!question.system.empty()) {
        json.begin_object().member("role", "system").member("content", question.system).end_object();
    }
    std::string content = input;
    if (!content.empty() && !question.prompt.empty()) content += "\n\n";
    content += question.prompt;
    json.begin_object().member("role", "user").member("content", content).end_object();
    return json.end_array().end_object().take();
}

// Prints an answer's text as it comes, and keeps when it began.
class Printer {
  public:
    explicit Printer(const std::string& model) { progress_.emplace(fmt::format("waiting for {} …", model)); }

    bool take(std::string_view bytes) {
        const auto fed = parser_.feed(bytes, [this](std::string_view, std::string_view data) { take_event(data); });
        if (!fed) error_ = fed.error();
        return !error_ && std::fflush(stdout) == 0;
    }

    const std::optional<Error>& error() const { return error_; }
    std::optional<Clock::time_point> first() const { return first_; }
    void end() {
        progress_.reset();
        if (!ends_with_newline_) std::fputc('\n', stdout);
        std::fflush(stdout);
    }

  private:
    void take_event(std::string_view data) {
        if (data == "[DONE]") return;
        auto event = Answer::parse(std::string(data));
        if (!event) return;
        simdjson::dom::element error, choice, delta;
        if (event->root()["error"].get(error) == simdjson::SUCCESS) {
            const auto& row = row_of_answer(Answer::text(error, "code"), 500);
            error_ = Error{row.kind, std::string(Answer::text(error, "message")), {}};
            return;
        }
        if (event->root()["choices"].at(0).get(choice) != simdjson::SUCCESS) return;
        if (choice["delta"].get(delta) != simdjson::SUCCESS) return;
        const std::string_view text = Answer::text(delta, "content");
        if (text.empty()) return;
        if (!first_) first_ = Clock::now();
        progress_.reset();
        std::fwrite(text.data(), 1, text.size(), stdout);
        ends_with_newline_ = text.back() == '\n';
    }

    SseParser parser_;
    std::optional<Progress> progress_;
    std::optional<Clock::time_point> first_;
    std::optional<Error> error_;
    bool ends_with_newline_ = true;
};

// From "…, wake;dur=101.3;desc=thawed, …": how long the wake-up took, and which it was.
std::pair<double, std::string> wake_of(const std::string& server_timing) {
    const std::string name = "wake;dur=";
    const size_t start = server_timing.find(name);
    if (start == std::string::npos) return {0, "unknown"};
    const char* number = server_timing.data() + start + name.size();
    double wake_ms = 0;
    std::from_chars(number, server_timing.data() + server_timing.size(), wake_ms);
    const size_t kind = server_timing.find("desc=", start);
    const size_t end = server_timing.find(',', start);
    return {wake_ms, kind < end ? server_timing.substr(kind + 5, end - kind - 5) : "unknown"};
}

double ms_between(Clock::time_point from, Clock::time_point to) {
    return std::chrono::duration<double, std::milli>(to - from).count();
}

Result<void> ask(Context& context, const Question& question) {
    auto input = read_standard_input();
    if (!input) return Failure(input.error());
    if (question.prompt.empty() && input->empty()) return fail(Kind::invalid, "there is nothing to ask: give a prompt");
    Printer printer(question.model);
    const auto start = Clock::now();
    auto streamed = context.client.stream("POST", "/v1/chat/completions", body_of(question, *input),
                                          [&](std::string_view piece) { return printer.take(piece); });
    const auto end = Clock::now();
    printer.end();
    if (!streamed) return Failure(streamed.error());
    if (printer.error()) return Failure(*printer.error());
    if (question.timing.empty()) return {};
    const auto [wake_ms, woke] = wake_of(streamed->server_timing);
    const double first_ms = ms_between(start, printer.first().value_or(end)), total_ms = ms_between(start, end);
    if (question.timing == "json") {
        fmt::print(stderr, "{{\"first_token_ms\":{:.1f},\"total_ms\":{:.1f},\"wake_ms\":{:.1f},\"woke\":\"{}\"}}\n", first_ms,
                   total_ms, wake_ms, woke);
    } else {
        fmt::print(stderr, "first token {:.0f} ms, total {:.0f} ms (wake {:.0f} ms, {})\n", first_ms, total_ms, wake_ms, woke);
    }
    return {};
}

}  // namespace

void add_ask(CLI::App& app, Context& context) {
    static Question question;
    CLI::App* verb = add_verb(app, context, "ask", "ask a model something",
                              "  torpor ask smollm2 \"What is a torpor?\"\n"
                              "  git diff | torpor ask coder \"Write a commit message.\"\n"
                              "  torpor ask smollm2 --timing \"Hi\"",
                              [&context] { return ask(context, question); });
    verb->add_option(model_argument, question.model, "the model's name or alias")->required();
    verb->add_option("PROMPT", question.prompt, "the question; a pipe on standard input comes before it");
    verb->add_option("--system", question.system, "a system prompt");
    verb->add_option("--max-tokens", question.tokens_max, "the longest answer")->check(CLI::PositiveNumber);
    verb->add_flag("--timing{text}", question.timing, "say on standard error how long it took; --timing=json for programs")
        ->check(CLI::IsMember(std::vector<std::string>{"text", "json"}));
}

}  // namespace torpor::cli
