#include "daemon/llm/wire.hh"

#include <array>

namespace torpor::llm {

std::span<const Wire* const> wires() {
    static constexpr std::array all{&anthropic_messages, &openai_chat, &openai_responses};
    return all;
}

const Wire* find_wire(std::string_view name) {
    for (const Wire* wire : wires()) {
        if (wire->name == name) return wire;
    }
    return nullptr;
}

}  // namespace torpor::llm
