// Sessions and their events. `event` is the truth: numbered from 1 without gaps within its session, never changed, never
// removed but with its session. A session's row holds what its events say, too, so that a
// listing reads no events. Bodies are JSON text that the caller has written; this file looks into none.
//
// All take a connection, and what writes runs within the writer's transaction (store/store.hh). Times are milliseconds since
// 1970. Errors: not_found where there is no such session, else those of database.hh.
#pragma once

#include "base/error.hh"
#include "store/database.hh"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace torpor::store {

// What a session does now. `running`: a turn is under way, or was when the daemon died; `asking`: and waits for an answer.
enum class SessionState { idle, running, asking };

struct Session {
    std::string id;        // as new_session_id() makes them
    std::string folder;    // absolute
    std::string title;
    std::string model;
    std::string mode;
    std::string parent;    // forked from; empty: none
    std::string caller = {};  // the session that began it (the tool Agent); empty: people did
    SessionState state = SessionState::idle;
    bool is_archived = false;
    int64_t last_seq = 0;
    int64_t created_at_ms = 0;
    int64_t updated_at_ms = 0;
};

struct Event {
    int64_t seq = 0;
    std::string kind;      // docs/events.md
    std::string body;      // a JSON object
    int64_t at_ms = 0;
};

// 26 characters, digits and lower-case letters: time first, so that they sort by it, then 80 random bits (the form of
// https://github.com/ulid/spec).
std::string new_session_id();

Result<void> add_session(Connection& db, const Session& session);
Result<Session> find_session(Connection& db, std::string_view id);
// The id that begins so, if it is one only; `conflict` if several do.
Result<std::string> complete_session_id(Connection& db, std::string_view beginning);
// Removes it with all its events and what only they refer to.
Result<void> remove_session(Connection& db, std::string_view id);

struct SessionChange {
    std::optional<std::string> title = {}, model = {}, mode = {};
    std::optional<SessionState> state = {};
    std::optional<bool> is_archived = {};
};

// Appends an event, and takes over what it changes of the session's row. `text`: what a search shall find it by; empty:
// nothing. Returns its number.
Result<int64_t> append_event(Connection& db, std::string_view session, std::string_view kind, std::string_view body,
                             int64_t at_ms, std::string_view text = {}, const SessionChange& change = {});

// Those after `after`, in order: at most so many, and no more once their bodies have `bytes_max` together (but at least one).
Result<std::vector<Event>> events_after(Connection& db, std::string_view session, int64_t after, size_t count_max, size_t bytes_max);
Result<Event> find_event(Connection& db, std::string_view session, int64_t seq);
// The last event of this kind, if there is one.
Result<std::optional<Event>> last_event(Connection& db, std::string_view session, std::string_view kind);

struct SessionQuery {
    std::string folder = {};               // empty: all; else this one and those below it
    std::string text = {};                 // words that its events or its title have; empty: all
    std::optional<SessionState> state = {};
    bool with_archived = false;
    bool with_called = false;              // also those that other sessions began
    int64_t before_ms = 0;                 // updated before; 0: no bound. For the next page
    size_t count_max = 50;
};
struct FoundSession {
    Session session;
    std::string excerpt = {};  // around the first match, if a text was asked for
};
// Those that this one began.
Result<std::vector<std::string>> sessions_called_by(Connection& db, std::string_view caller);
// The one that was used last is first.
Result<std::vector<FoundSession>> find_sessions(Connection& db, const SessionQuery& query);

// Large things that events refer to by their hash: images, long outputs. Kept once however often they are referred to;
// removed with the last session that does.
Result<std::string> put_content(Connection& db, std::string_view session, std::string_view bytes);  // returns the hash, hex
Result<std::string> find_content(Connection& db, std::string_view session, std::string_view hash);
// All that `from` refers to, `to` does, too.
Result<void> share_contents(Connection& db, std::string_view from, std::string_view to);

// A permission that was given for good: which rule ("tool", "tool(exact)", "tool(prefix:*)") in which folder.
struct Grant {
    int64_t id = 0;
    std::string folder;
    std::string rule;
    std::string decision;      // allow, ask, deny
    std::string by;            // the principal
    int64_t created_at_ms = 0;
};
Result<void> put_grant(Connection& db, const Grant& grant);
Result<std::vector<Grant>> all_grants(Connection& db, std::string_view folder);  // empty: of all folders
Result<void> remove_grant(Connection& db, int64_t id);

// What models took, for sums by day, model and session.
struct Usage {
    std::string session;
    std::string provider;
    std::string model;
    int64_t input_tokens = 0, output_tokens = 0, cache_read_tokens = 0, cache_write_tokens = 0;
    std::optional<double> cost;  // in the price table's currency; nothing: unknown
    int64_t at_ms = 0;
};
Result<void> add_usage(Connection& db, const Usage& usage);

}  // namespace torpor::store
