#include "base/text.hh"
#include "clients/cli/output.hh"
#include "clients/cli/verbs.hh"

namespace torpor::cli {

void add_snapshot_verbs(CLI::App& app, Context& context) {
    CLI::App* group = app.add_subcommand("snapshot", "the images that sleeping models wake from");
    group->require_subcommand(1);

    CLI::App* list = add_verb(*group, context, "ls", "list the snapshots", "", [&context]() -> Result<void> {
        const auto answer = context.client.get("/api/snapshots");
        return print_list(context, answer, "snapshots", [&answer](simdjson::dom::array snapshots) {
            Table table({"MODEL", "TIER", "SIZE", "MADE", "STATE"});
            for (const simdjson::dom::element snapshot : snapshots) {
                const bool valid = Answer::truth(snapshot, "valid");
                table.add({std::string(Answer::text(snapshot, "model")), std::string(Answer::text(snapshot, "tier")),
                           format_bytes(static_cast<uint64_t>(Answer::number(snapshot, "bytes"))),
                           ago(Answer::number(snapshot, "created_at_ms")),
                           valid ? (Answer::truth(snapshot, "with_state") ? "valid, with state" : "valid") : fmt::format("void: {}", Answer::text(snapshot, "reason"))});
            }
            table.print();
            const auto bytes = [&answer](std::string_view key) {
                return format_bytes(static_cast<uint64_t>(Answer::number(answer->root(), key)));
            };
            print_line(fmt::format("\ntogether {} of {} that they may take", bytes("used_bytes"), bytes("budget_bytes")));
            for (const simdjson::dom::element model : Answer::list(answer->root(), "without")) {
                print_line(fmt::format("{} has none: {}", Answer::text(model, "model"), Answer::text(model, "reason")));
            }
        });
    });
    add_json(list, context);

    static std::string model;
    CLI::App* verify = add_verb(*group, context, "verify", "read a whole snapshot and compare its checksums", "  torpor snapshot verify smollm2",
             [&context]() -> Result<void> {
                 auto verified = context.client.post("/api/snapshots/" + escape_path(model) + "/verify");
                 if (!verified) return Failure(verified.error());
                 const std::string size = format_bytes(static_cast<uint64_t>(Answer::number(verified->root(), "bytes")));
                 if (!Answer::truth(verified->root(), "valid")) {
                     return fail(Kind::conflict, "it cannot be thawed ({}); the next start of {} is cold, and makes another",
                                 Answer::text(verified->root(), "reason"), model);
                 }
                 print_line(fmt::format("whole: {} as they were written", size));
                 return {};
             });
    verify->add_option(model_argument, model, "the model's name")->required();

    add_verb(*group, context, "rm", "remove a model's snapshot; its next start is cold", "  torpor snapshot rm smollm2",
             [&context]() -> Result<void> {
                 auto removed = context.client.remove("/api/snapshots/" + escape_path(model));
                 if (!removed) return Failure(removed.error());
                 print_line(fmt::format("removed; {} of disk came back",
                                        format_bytes(static_cast<uint64_t>(Answer::number(removed->root(), "bytes")))));
                 return {};
             })
        ->add_option(model_argument, model, "the model's name")
        ->required();
}

}  // namespace torpor::cli
