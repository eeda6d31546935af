// What several handlers of sessions say and check alike.
#pragma once

#include "base/error.hh"
#include "base/json.hh"
#include "store/sessions.hh"

#include <cstdint>
#include <string>
#include <string_view>

namespace torpor::api {

// Opens an object and writes what docs/api.md shows of a session; the caller closes it.
void write_session(JsonWriter& json, const store::Session& session);

// As it is really called (no symbolic link, no "..").
Result<std::string> check_folder(const std::string& folder);
Result<void> check_mode(const std::string& mode);

// Of the event `created`; `parent`: the session that it was forked from at event `at`, or empty.
std::string created_body(const store::Session& row, std::string_view by, std::string_view parent, int64_t at);

}  // namespace torpor::api
