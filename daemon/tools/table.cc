#include "daemon/tools/table.hh"

#include <array>

namespace torpor::agent {

std::span<const Tool> tools() {
    // Models are told of them in this order, which never changes: their caches depend on it.
    static const std::array all{tools::bash, tools::read_file, tools::write_file, tools::agent_tool, tools::structured_output};
    return all;
}

const Tool* find_tool(std::string_view name) {
    for (const Tool& tool : tools()) {
        if (tool.name == name) return &tool;
    }
    return nullptr;
}

}  // namespace torpor::agent
