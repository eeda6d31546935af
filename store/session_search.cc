// Finding sessions: by folder, time and state from their rows, by words with SQLite's full-text index.
// Source of its query language: https://www.sqlite.org/fts5.html ("Full-text Query Syntax").
#include "store/limits.hh"
#include "store/session_row.hh"

namespace torpor::store {

namespace {

// All these words, the last one perhaps not finished. Each is quoted, so nothing in it is syntax. Empty: no word at all.
std::string match_of(std::string_view text) {
    std::string match;
    size_t words = 0;
    for (size_t at = 0; at < text.size() && words < search_words_max; ++words) {
        const size_t first = text.find_first_not_of(" \t\r\n", at);
        if (first == std::string_view::npos) break;
        at = std::min(text.find_first_of(" \t\r\n", first), text.size());
        if (!match.empty()) match += ' ';
        match += '"';
        for (const char c : text.substr(first, at - first)) {
            if (c == '"') match += '"';
            if (c != '\0') match += c;
        }
        match += '"';
    }
    return match.empty() ? match : match + '*';
}

Result<std::string> excerpt_of(Connection& db, const std::string& match, int64_t place) {
    auto found = db.prepare("SELECT snippet(found, 0, '', '', '…', ?) FROM found WHERE found MATCH ? AND rowid = ?");
    if (!found) return Failure(found.error());
    if (auto bound = found->bind(excerpt_words, match, place); !bound) return Failure(bound.error());
    auto row = found->step();
    if (!row) return Failure(row.error());
    return *row ? found->text(0) : std::string();
}

}  // namespace

Result<std::vector<FoundSession>> find_sessions(Connection& db, const SessionQuery& query) {
    const std::string match = match_of(query.text);
    if (match.empty() && query.text.find_first_not_of(" \t\r\n") != std::string::npos) return std::vector<FoundSession>();
    // Words first, where there are any: they leave few sessions to sort.
    std::string sql = match.empty()
        ? fmt::format("SELECT {}, 0 FROM session WHERE ?1 = ''", session_columns)
        : fmt::format("WITH hit AS (SELECT rowid >> 32 AS of, min(rowid) AS place FROM found WHERE found MATCH ?1 GROUP BY rowid >> 32) "
                      "SELECT {}, hit.place FROM hit JOIN session ON session.number = hit.of WHERE 1",
                      session_columns);
    sql += " AND (?2 OR NOT is_archived) AND (?7 OR caller = '')";
    if (!query.folder.empty()) sql += " AND (folder = ?3 OR folder >= ?3 || '/' AND folder < ?3 || '0')";  // '0' is behind '/'
    if (query.state) sql += " AND state = ?4";
    if (query.before_ms > 0) sql += " AND updated_at_ms < ?5";
    sql += " ORDER BY updated_at_ms DESC, number DESC LIMIT ?6";
    auto found = db.prepare(sql);
    if (!found) return Failure(found.error());
    std::string folder = query.folder;
    while (folder.size() > 1 && folder.ends_with('/')) folder.pop_back();
    if (folder == "/") folder.clear();  // "" || '/' is what all begin with
    auto bound = found->bind(match, query.with_archived, folder, static_cast<int>(query.state.value_or(SessionState::idle)), query.before_ms,
                             query.count_max, query.with_called);
    if (!bound) return Failure(bound.error());
    std::vector<FoundSession> sessions;
    std::vector<int64_t> places;
    for (;;) {
        auto row = found->step();
        if (!row) return Failure(row.error());
        if (!*row) break;
        sessions.push_back({session_of(*found), {}});
        places.push_back(found->integer(13));
    }
    if (match.empty()) return sessions;
    for (size_t i = 0; i < sessions.size(); ++i) {
        auto excerpt = excerpt_of(db, match, places[i]);
        if (!excerpt) return Failure(excerpt.error());
        sessions[i].excerpt = std::move(*excerpt);
    }
    return sessions;
}

}  // namespace torpor::store
