// What was allowed for good, and what models took.
#include "store/sessions.hh"

namespace torpor::store {

Result<void> put_grant(Connection& db, const Grant& grant) {
    return db.run("INSERT INTO permission (folder, rule, decision, by, created_at_ms) VALUES (?, ?, ?, ?, ?) "
                  "ON CONFLICT (folder, rule) DO UPDATE SET decision = excluded.decision, by = excluded.by, created_at_ms = excluded.created_at_ms",
                  grant.folder, grant.rule, grant.decision, grant.by, grant.created_at_ms);
}

Result<std::vector<Grant>> all_grants(Connection& db, std::string_view folder) {
    auto found = db.prepare("SELECT id, folder, rule, decision, by, created_at_ms FROM permission WHERE ?1 = '' OR folder = ?1 ORDER BY folder, id");
    if (!found) return Failure(found.error());
    if (auto bound = found->bind(folder); !bound) return Failure(bound.error());
    std::vector<Grant> grants;
    for (;;) {
        auto row = found->step();
        if (!row) return Failure(row.error());
        if (!*row) return grants;
        grants.push_back({found->integer(0), found->text(1), found->text(2), found->text(3), found->text(4), found->integer(5)});
    }
}

Result<void> remove_grant(Connection& db, int64_t id) {
    if (auto removed = db.run("DELETE FROM permission WHERE id = ?", id); !removed) return removed;
    if (db.changes() == 0) return fail(Kind::not_found, "there is no grant {}", id);
    return {};
}

Result<void> add_usage(Connection& db, const Usage& usage) {
    return db.run("INSERT INTO usage (session, provider, model, input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, cost, at_ms) "
                  "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                  usage.session, usage.provider, usage.model, usage.input_tokens, usage.output_tokens, usage.cache_read_tokens,
                  usage.cache_write_tokens, usage.cost, usage.at_ms);
}

}  // namespace torpor::store
