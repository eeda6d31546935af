#include "clients/cli/verbs.hh"

#include <cstdio>

namespace torpor::cli {

namespace {

struct Arguments {
    std::string model;
    bool gateway = false;
    bool follow = false;
    size_t bytes = 65536;
};

Result<void> show(Context& context, const Arguments& arguments) {
    if (arguments.gateway != arguments.model.empty()) {
        return fail(Kind::invalid, "name a model, or say --gateway for the requests to all of them");
    }
    const std::string place = arguments.gateway ? "/api/requests" : fmt::format("/api/models/{}/logs", escape_path(arguments.model));
    const std::string path = fmt::format("{}?bytes={}{}", place, arguments.bytes, arguments.follow ? "&follow=true" : "");
    auto shown = context.client.stream("GET", path, "", [](std::string_view piece) {
        return std::fwrite(piece.data(), 1, piece.size(), stdout) == piece.size() && std::fflush(stdout) == 0;
    });
    if (!shown) return Failure(shown.error());
    return {};
}

}  // namespace

void add_logs(CLI::App& app, Context& context) {
    static Arguments arguments;
    CLI::App* verb = add_verb(app, context, "logs", "show what a model's engine wrote, or which requests came",
                              "  torpor logs smollm2 -f\n"
                              "  torpor logs --gateway -f     one line of JSON a request, without its content",
                              [&context] { return show(context, arguments); });
    verb->add_option(model_argument, arguments.model, "the model's name");
    verb->add_flag("--gateway", arguments.gateway, "the requests to /v1: time, key, model, status, tokens, milliseconds");
    verb->add_flag("-f,--follow", arguments.follow, "go on until interrupted");
    verb->add_option("--bytes", arguments.bytes, "how much of its end")->default_val(65536);
}

}  // namespace torpor::cli
