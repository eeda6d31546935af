// A call that may run: for the files of Turn alone.
#pragma once

#include "daemon/agent/tool.hh"
#include "daemon/agent/turn.hh"

#include <memory>

namespace torpor::agent {

struct Turn::Ready {
    CallState call;
    const Tool* tool = nullptr;
    std::unique_ptr<simdjson::dom::parser> parser = std::make_unique<simdjson::dom::parser>();
    simdjson::dom::object input = {};
    ToolContext context = {};
    ToolUse use = {};
    bool is_asked = false;  // a question was put, and waits
};

}  // namespace torpor::agent
