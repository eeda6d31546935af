#include "store/trust.hh"

namespace torpor::store {

Result<void> put_trust(Connection& db, const Trust& trust) {
    return db.run("INSERT INTO trust (folder, hash, by, at_ms) VALUES (?, ?, ?, ?) "
                  "ON CONFLICT (folder) DO UPDATE SET hash = excluded.hash, by = excluded.by, at_ms = excluded.at_ms",
                  trust.folder, trust.hash, trust.by, trust.at_ms);
}

Result<std::string> trusted_hash(Connection& db, std::string_view folder) {
    auto found = db.prepare("SELECT hash FROM trust WHERE folder = ?");
    if (!found) return Failure(found.error());
    if (auto bound = found->bind(folder); !bound) return Failure(bound.error());
    auto row = found->step();
    if (!row) return Failure(row.error());
    return *row ? found->text(0) : std::string();
}

Result<void> remove_trust(Connection& db, std::string_view folder) {
    if (auto removed = db.run("DELETE FROM trust WHERE folder = ?", folder); !removed) return removed;
    if (db.changes() == 0) return fail(Kind::not_found, "{} is not trusted", folder);
    return {};
}

}  // namespace torpor::store
