#include "store/sessions.hh"

#include "store/limits.hh"
#include "store/session_row.hh"
#include "store/store.hh"

#include <sys/random.h>

#include <algorithm>
#include <array>
#include <cerrno>

namespace torpor::store {

namespace {

// Crockford's base 32, lower case: nothing that looks like something else.
constexpr std::string_view id_digits = "0123456789abcdefghjkmnpqrstvwxyz";
constexpr size_t id_time_digits = 10, id_random_digits = 16;

Failure no_session(std::string_view id) {
    return fail(Kind::not_found, "there is no session {}; torpor sessions ls lists them", id);
}

// No more of a text than searched_bytes_max, cut between characters.
std::string_view searched(std::string_view text) {
    if (text.size() <= searched_bytes_max) return text;
    size_t end = searched_bytes_max;
    while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80) --end;
    return text.substr(0, end);
}

Result<void> put_found(Connection& db, int64_t place, std::string_view text) {
    return db.run("INSERT INTO found (rowid, text) VALUES (?, ?)", place, searched(text));
}

}  // namespace

Session session_of(const Statement& row) {
    Session session;
    session.id = row.text(1);
    session.folder = row.text(2);
    session.title = row.text(3);
    session.model = row.text(4);
    session.mode = row.text(5);
    session.parent = row.text(6);
    session.state = static_cast<SessionState>(row.integer(7));
    session.is_archived = row.integer(8) != 0;
    session.last_seq = row.integer(9);
    session.created_at_ms = row.integer(10);
    session.updated_at_ms = row.integer(11);
    session.caller = row.text(12);
    return session;
}

Result<int64_t> session_number(Connection& db, std::string_view id) {
    auto found = db.prepare("SELECT number FROM session WHERE id = ?");
    if (!found) return Failure(found.error());
    if (auto bound = found->bind(id); !bound) return Failure(bound.error());
    auto row = found->step();
    if (!row) return Failure(row.error());
    if (!*row) return no_session(id);
    return found->integer(0);
}

std::string new_session_id() {
    std::array<unsigned char, id_random_digits> random{};
    while (::getrandom(random.data(), random.size(), 0) < 0 && errno == EINTR) {
    }
    std::string id(id_time_digits, '0');
    auto time = static_cast<uint64_t>(now_ms());
    for (size_t i = id_time_digits; i-- > 0; time /= 32) id[i] = id_digits[time % 32];
    for (const unsigned char byte : random) id += id_digits[byte % 32];
    return id;
}

Result<void> add_session(Connection& db, const Session& session) {
    auto added = db.run("INSERT INTO session (id, folder, title, model, mode, parent, state, is_archived, last_seq, created_at_ms, updated_at_ms, caller) "
                        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0, ?, ?, ?)",
                        session.id, session.folder, session.title, session.model, session.mode, session.parent,
                        static_cast<int>(session.state), session.is_archived, session.created_at_ms, session.created_at_ms, session.caller);
    if (!added || session.title.empty()) return added;
    return put_found(db, place_of(db.last_insert_id(), 0), session.title);
}

Result<Session> find_session(Connection& db, std::string_view id) {
    auto found = db.prepare(fmt::format("SELECT {} FROM session WHERE id = ?", session_columns));
    if (!found) return Failure(found.error());
    if (auto bound = found->bind(id); !bound) return Failure(bound.error());
    auto row = found->step();
    if (!row) return Failure(row.error());
    if (!*row) return no_session(id);
    return session_of(*found);
}

Result<std::string> complete_session_id(Connection& db, std::string_view beginning) {
    std::string first(beginning);
    std::ranges::transform(first, first.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    if (first.empty() || first.find_first_not_of(id_digits) != std::string::npos) return no_session(beginning);
    auto found = db.prepare("SELECT id FROM session WHERE id >= ? AND id < ? ORDER BY id LIMIT 3");
    if (!found) return Failure(found.error());
    if (auto bound = found->bind(first, first + '{'); !bound) return Failure(bound.error());  // '{' is behind 'z'
    std::vector<std::string> ids;
    for (;;) {
        auto row = found->step();
        if (!row) return Failure(row.error());
        if (!*row) break;
        ids.push_back(found->text(0));
    }
    if (ids.empty()) return no_session(beginning);
    if (ids.size() > 1 && ids.front() != first) {
        return fail(Kind::conflict, "several sessions begin with {} ({} and {}, for two); say more of the one that is meant", beginning, ids[0], ids[1]);
    }
    return ids.front();
}

Result<std::vector<std::string>> sessions_called_by(Connection& db, std::string_view caller) {
    auto found = db.prepare("SELECT id FROM session WHERE caller = ? AND caller <> '' ORDER BY number");
    if (!found) return Failure(found.error());
    if (auto bound = found->bind(caller); !bound) return Failure(bound.error());
    std::vector<std::string> ids;
    for (;;) {
        auto row = found->step();
        if (!row) return Failure(row.error());
        if (!*row) return ids;
        ids.push_back(found->text(0));
    }
}

Result<void> remove_session(Connection& db, std::string_view id) {
    auto number = session_number(db, id);
    if (!number) return Failure(number.error());
    const int64_t first = place_of(*number, 0), end = place_of(*number + 1, 0);
    const auto run = [&](Result<void> done, std::string_view sql, const auto&... values) {
        return done ? db.run(sql, values...) : done;
    };
    auto done = db.run("DELETE FROM event WHERE place >= ? AND place < ?", first, end);
    done = run(done, "DELETE FROM found WHERE rowid >= ? AND rowid < ?", first, end);
    // Whoever else uses a content keeps it.
    done = run(done, "CREATE TEMP TABLE IF NOT EXISTS unused (number INTEGER PRIMARY KEY)");
    done = run(done, "DELETE FROM unused");
    done = run(done,
               "INSERT INTO unused SELECT content FROM content_use AS mine WHERE session = ?1 AND NOT EXISTS "
               "(SELECT 1 FROM content_use AS other WHERE other.content = mine.content AND other.session <> ?1)",
               *number);
    done = run(done, "DELETE FROM content_use WHERE session = ?", *number);
    done = run(done, "DELETE FROM content WHERE number IN (SELECT number FROM unused)");
    return run(done, "DELETE FROM session WHERE number = ?", *number);
}

Result<int64_t> append_event(Connection& db, std::string_view session, std::string_view kind, std::string_view body, int64_t at_ms,
                             std::string_view text, const SessionChange& change) {
    int64_t number = 0, seq = 0;
    {
        auto updated = db.prepare("UPDATE session SET last_seq = last_seq + 1, updated_at_ms = max(updated_at_ms, ?), title = coalesce(?, title), "
                                  "model = coalesce(?, model), mode = coalesce(?, mode), state = coalesce(?, state), "
                                  "is_archived = coalesce(?, is_archived) WHERE id = ? RETURNING number, last_seq");
        if (!updated) return Failure(updated.error());
        const auto state = change.state ? std::optional(static_cast<int>(*change.state)) : std::nullopt;
        const auto archived = change.is_archived ? std::optional(static_cast<int>(*change.is_archived)) : std::nullopt;
        if (auto bound = updated->bind(at_ms, change.title, change.model, change.mode, state, archived, session); !bound) {
            return Failure(bound.error());
        }
        auto row = updated->step();
        if (!row) return Failure(row.error());
        if (!*row) return no_session(session);
        number = updated->integer(0);
        seq = updated->integer(1);
        if (auto ended = updated->step(); !ended) return Failure(ended.error());
    }
    auto done = db.run("INSERT INTO event (place, kind, body, at_ms) VALUES (?, ?, ?, ?)", place_of(number, seq), kind, body, at_ms);
    if (done && !text.empty()) done = put_found(db, place_of(number, seq), text);
    if (done && change.title) {
        done = db.run("DELETE FROM found WHERE rowid = ?", place_of(number, 0));
        if (done && !change.title->empty()) done = put_found(db, place_of(number, 0), *change.title);
    }
    if (!done) return Failure(done.error());
    return seq;
}

Result<std::vector<Event>> events_after(Connection& db, std::string_view session, int64_t after, size_t count_max, size_t bytes_max) {
    auto number = session_number(db, session);
    if (!number) return Failure(number.error());
    auto found = db.prepare("SELECT place, kind, body, at_ms FROM event WHERE place > ? AND place < ? ORDER BY place LIMIT ?");
    if (!found) return Failure(found.error());
    const int64_t first = place_of(*number, std::clamp<int64_t>(after, 0, seq_max));
    if (auto bound = found->bind(first, place_of(*number + 1, 0), count_max); !bound) return Failure(bound.error());
    std::vector<Event> events;
    for (size_t bytes = 0;;) {
        auto row = found->step();
        if (!row) return Failure(row.error());
        if (!*row) return events;
        Event event{seq_of(found->integer(0)), found->text(1), found->text(2), found->integer(3)};
        bytes += event.body.size();
        if (bytes > bytes_max && !events.empty()) return events;
        events.push_back(std::move(event));
    }
}

Result<Event> find_event(Connection& db, std::string_view session, int64_t seq) {
    auto events = events_after(db, session, seq - 1, 1, 0);
    if (!events) return Failure(events.error());
    if (events->empty() || events->front().seq != seq) return fail(Kind::not_found, "session {} has no event {}", session, seq);
    return std::move(events->front());
}

Result<std::optional<Event>> last_event(Connection& db, std::string_view session, std::string_view kind) {
    auto number = session_number(db, session);
    if (!number) return Failure(number.error());
    auto found = db.prepare("SELECT place, kind, body, at_ms FROM event WHERE place > ? AND place < ? AND kind = ? ORDER BY place DESC LIMIT 1");
    if (!found) return Failure(found.error());
    if (auto bound = found->bind(place_of(*number, 0), place_of(*number + 1, 0), kind); !bound) return Failure(bound.error());
    auto row = found->step();
    if (!row) return Failure(row.error());
    if (!*row) return std::optional<Event>();
    return std::optional(Event{seq_of(found->integer(0)), found->text(1), found->text(2), found->integer(3)});
}

}  // namespace torpor::store
