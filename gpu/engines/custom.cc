// Any command line. {host} {port} {socket} {path} and {name} in `command` are replaced.
#include "gpu/engine.hh"

#include <algorithm>
#include <array>
#include <utility>

namespace torpor::gpu {

namespace {

bool mentions(const Model& model, std::string_view word) {
    return std::ranges::any_of(model.command, [&](const std::string& part) { return part.find(word) != std::string::npos; });
}

std::string replaced(std::string text, std::string_view word, const std::string& by) {
    for (size_t at = 0; (at = text.find(word, at)) != std::string::npos; at += by.size()) text.replace(at, word.size(), by);
    return text;
}

Result<void> check(const Model& model) {
    if (model.command.empty()) return fail(Kind::invalid, "command is missing: the program and its arguments, as a list");
    if (!mentions(model, "{socket}") && !mentions(model, "{port}")) {
        return fail(Kind::invalid, "command must say where to listen: put {{socket}} (better) or {{port}} into it");
    }
    return {};
}

Result<std::string> find(const Model& model, const Folders&, const EnginePrograms&) {
    std::string found = find_on_path(model.command[0]);
    if (found.empty()) return fail(Kind::engine, "{} is not an executable file, nor on PATH", model.command[0]);
    return found;
}

std::vector<std::string> command_line(const Model& model, const Endpoint& endpoint, const std::string& program) {
    std::vector<std::string> argv{program};
    std::vector<std::string> rest(model.command.begin() + 1, model.command.end());
    rest.insert(rest.end(), model.args.begin(), model.args.end());
    for (std::string& part : rest) {
        part = replaced(std::move(part), "{host}", "127.0.0.1");
        part = replaced(std::move(part), "{port}", std::to_string(endpoint.port));
        part = replaced(std::move(part), "{socket}", endpoint.socket);
        part = replaced(std::move(part), "{path}", model.path);
        part = replaced(std::move(part), "{name}", model.name);
        argv.push_back(std::move(part));
    }
    return argv;
}

}  // namespace

const Engine custom_engine{
    .name = "custom",
    .wires = {Wire::openai_chat, Wire::openai_completions},
    .ready_path = "/health",
    .refuse_io_uring = true,
    .refuse_amx = true,
    .environment = {},
    .warm_up_path = "",
    .warm_up_body = [](const Model&) { return std::string(); },
    .uses_socket = [](const Model& model) { return mentions(model, "{socket}"); },
    .check = check,
    .find = find,
    .command_line = command_line,
};

}  // namespace torpor::gpu
