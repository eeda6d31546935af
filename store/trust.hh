// Folders that are trusted, each with the hash of the settings that it had then. Jobs of the writer and of readers (store.hh).
#pragma once

#include "store/database.hh"

#include <cstdint>
#include <string>
#include <string_view>

namespace torpor::store {

struct Trust {
    std::string folder;  // absolute, without links
    std::string hash;    // of its settings (daemon/agent/settings.hh)
    std::string by;      // the principal
    int64_t at_ms = 0;
};

// In place of what was trusted before.
Result<void> put_trust(Connection& db, const Trust& trust);
// Empty if nothing of this folder is trusted.
Result<std::string> trusted_hash(Connection& db, std::string_view folder);
// `not_found` if it was not trusted.
Result<void> remove_trust(Connection& db, std::string_view folder);

// SHA-256, in hex.
Result<std::string> hash_of(std::string_view bytes);

}  // namespace torpor::store
