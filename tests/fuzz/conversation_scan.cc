// Any bytes have a conversation: no more blocks than they fill, the same each time, and its beginning is its own.
#include "daemon/gateway/conversation_scan.hh"

#include <cstdlib>
#include <string>

using namespace torpor;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    const std::string body(reinterpret_cast<const char*>(data), size);
    const gpu::Conversation once = gateway::scan_conversation(body);
    if (once.blocks.size() > 2 * size / gpu::Conversation::block_bytes) std::abort();  // each text has an end, too
    if (gateway::scan_conversation(body) != once) std::abort();
    gpu::Conversation beginning = once;
    beginning.blocks.resize(once.blocks.size() / 2);
    if (once.in_common(beginning) != beginning.blocks.size()) std::abort();
    return 0;
}
