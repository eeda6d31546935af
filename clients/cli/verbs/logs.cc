#include "clients/cli/verbs.hh"

#include <cstdio>

namespace torpor::cli {

void add_logs(CLI::App& app, Context& context) {
    struct Arguments {
        std::string model;
        bool follow = false;
        size_t bytes = 65536;
    };
    static Arguments arguments;
    CLI::App* verb = add_verb(app, context, "logs", "show what a model's engine wrote", "  torpor logs smollm2 -f",
                              [&context]() -> Result<void> {
                                  const std::string path = fmt::format("/api/models/{}/logs?bytes={}{}", escape_path(arguments.model),
                                                                       arguments.bytes, arguments.follow ? "&follow=true" : "");
                                  auto shown = context.client.stream("GET", path, "", [](std::string_view piece) {
                                      return std::fwrite(piece.data(), 1, piece.size(), stdout) == piece.size() &&
                                             std::fflush(stdout) == 0;
                                  });
                                  if (!shown) return Failure(shown.error());
                                  return {};
                              });
    verb->add_option(model_argument, arguments.model, "the model's name")->required();
    verb->add_flag("-f,--follow", arguments.follow, "go on until interrupted");
    verb->add_option("--bytes", arguments.bytes, "how much of its end")->default_val(65536);
}

}  // namespace torpor::cli
