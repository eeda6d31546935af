// Workers: what runs and what sleeps, and changing that by hand.
#include "base/text.hh"
#include "clients/cli/output.hh"
#include "clients/cli/verbs.hh"

namespace torpor::cli {

namespace {

std::string state_of(simdjson::dom::element model) {
    const std::string_view tier = Answer::text(model, "tier");
    std::string state(Answer::text(model, "state"));
    if (!tier.empty()) state = fmt::format("{} ({})", state, tier);
    return Answer::truth(model, "waits_for_memory") ? state + ", waits for memory" : state;
}

std::string bytes_or_dash(int64_t bytes) {
    return bytes == 0 ? "-" : format_bytes(static_cast<uint64_t>(bytes));
}

void print_workers(simdjson::dom::array models) {
    Table table({"MODEL", "STATE", "PID", "MEMORY", "SNAPSHOT", "REQUESTS", "SINCE"});
    std::string errors;
    for (const simdjson::dom::element model : models) {
        const int64_t pid = Answer::number(model, "pid"), waiting = Answer::number(model, "waiting");
        std::string requests = std::to_string(Answer::number(model, "requests"));
        if (waiting > 0) requests += fmt::format(" (+{} waiting)", waiting);
        table.add({std::string(Answer::text(model, "name")), state_of(model), pid == 0 ? "-" : std::to_string(pid),
                   bytes_or_dash(Answer::number(model, "memory_bytes")),
                   bytes_or_dash(Answer::number(model, "snapshot_bytes")), requests, ago(Answer::number(model, "since_ms"))});
        // They are models to those who ask, but have no process of their own.
        for (const std::string& adapter : adapters_of(model)) table.add({"  " + adapter, "adapter", "-", "-", "-", "-", "-"});
        if (const auto error = Answer::text(model, "last_error"); !error.empty()) {
            errors += fmt::format("\n{}: {}", Answer::text(model, "name"), error);
        }
    }
    for (const simdjson::dom::element model : models) {
        if (const auto why = Answer::text(model, "no_snapshot"); !why.empty()) {
            errors += fmt::format("\n{} has no snapshot: {}", Answer::text(model, "name"), why);
        }
    }
    table.print();
    if (!errors.empty()) print_line(errors);
    if (models.size() == 0) std::fputs("there is no model yet; torpor model add --help shows how to add one\n", stderr);
}

// Asks for the change and says what came of it.
Result<void> change(Context& context, const std::string& model, const std::string& action, bool forced, bool with_state) {
    const std::string path = "/api/models/" + escape_path(model);
    auto before = context.client.get(path);
    if (!before) return Failure(before.error());
    Result<Answer> after = [&] {
        Progress progress(fmt::format("{} {} …", action, model));
        return context.client.post(path + "/" + action + (forced ? "?force=true" : ""), with_state ? R"({"with_state":true})" : "{}");
    }();
    if (!after) return Failure(after.error());
    const int64_t freed = Answer::number(before->root(), "memory_bytes") - Answer::number(after->root(), "memory_bytes");
    std::string line = fmt::format("{} is {}", Answer::text(after->root(), "name"), state_of(after->root()));
    if (freed > 0) line += fmt::format("; {} of memory came back", format_bytes(static_cast<uint64_t>(freed)));
    print_line(line);
    return {};
}

void add_change(CLI::App& app, Context& context, const std::string& action, const std::string& summary, bool may_force) {
    struct Arguments {
        std::string model;
        bool forced = false, with_state = false;
    };
    auto arguments = std::make_shared<Arguments>();
    CLI::App* verb = add_verb(app, context, action, summary, fmt::format("  torpor {} smollm2", action),
                              [&context, arguments, action] { return change(context, arguments->model, action, arguments->forced, arguments->with_state); });
    verb->add_option(model_argument, arguments->model, "the model's name")->required();
    if (action == "suspend") {
        verb->add_flag("--with-state", arguments->with_state,
                       "the next wake-up has what it has in memory now: an engine whose prompts are not kept anyway gets a new snapshot");
    }
    if (may_force) verb->add_flag("--force", arguments->forced, "do not wait for requests under way; they end with an error");
}

}  // namespace

void add_worker_verbs(CLI::App& app, Context& context) {
    CLI::App* list = add_verb(app, context, "ps", "show what runs and what sleeps", "  torpor ps\n  torpor ps --json",
                              [&context] { return print_list(context, context.client.get("/api/models"), "models", print_workers); });
    add_json(list, context);
    add_change(app, context, "suspend", "put a model to sleep now", true);
    add_change(app, context, "resume", "wake a model now", false);
    add_change(app, context, "stop", "end a model's worker; the next start is cold", true);
}

}  // namespace torpor::cli
