// Which conversation a request goes on with, for engines that keep the state of prompts.
#pragma once

#include "gpu/conversation.hh"

#include <string_view>

namespace torpor::gateway {

// Reads the texts of a request's JSON, on any wire: what comes first in every prompt (system, instructions, tools), then
// messages, input or prompt. Marks that clients move about from turn to turn (cache_control) and the difference between
// "content": "Hi" and [{"type": "text", "text": "Hi"}] do not count. Takes any bytes; of what is not well-formed
// something harmless comes out. No blocks for bodies of more than conversation_bytes_max.
gpu::Conversation scan_conversation(std::string_view body);

}  // namespace torpor::gateway
