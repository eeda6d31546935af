// Each tool, defined in its file.
#pragma once

#include "daemon/agent/tool.hh"

namespace torpor::tools {

extern const agent::Tool agent_tool;
extern const agent::Tool bash;
extern const agent::Tool read_file;
extern const agent::Tool structured_output;
extern const agent::Tool write_file;

}  // namespace torpor::tools
