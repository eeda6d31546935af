// What every request of a session begins with. Made once, before its first turn, and kept as content: it must stay the same to
// the byte, or the providers' caches of all that follows are lost.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

namespace torpor::agent {

struct SystemFacts {
    std::filesystem::path folder;   // the session's
    std::filesystem::path config;   // the user's own memory files lie there
    int64_t created_at_ms = 0;      // of the session: the date that the model is told
};

// Reads the memory files: AGENTS.md, AGENTS.local.md, CLAUDE.md and CLAUDE.local.md from the git root (or the folder itself where
// there is none) down to the folder, after the user's own. What is a link out of the root is left out. Blocks on the disk.
std::string make_system_prompt(const SystemFacts& facts);

}  // namespace torpor::agent
