// How sessions lie in their tables, for the files of store/ that read them (schema.cc).
#pragma once

#include "store/database.hh"
#include "store/sessions.hh"

#include <cstdint>
#include <string_view>

namespace torpor::store {

inline constexpr int64_t seq_max = (int64_t{1} << 32) - 1;

constexpr int64_t place_of(int64_t session_number, int64_t seq) { return session_number << 32 | seq; }
constexpr int64_t seq_of(int64_t place) { return place & seq_max; }

// What session_of() reads, in its order, from column 0 on.
inline constexpr std::string_view session_columns =
    "number, id, folder, title, model, mode, parent, state, is_archived, last_seq, created_at_ms, updated_at_ms, caller";
Session session_of(const Statement& row);

// `not_found` if there is no such session.
Result<int64_t> session_number(Connection& db, std::string_view id);

}  // namespace torpor::store
