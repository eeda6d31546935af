// One session of the daemon, as a terminal follows it.
#pragma once

#include "base/error.hh"
#include "clients/cli/client.hh"
#include "clients/cli/sanitise.hh"

#include <cstdint>
#include <cstdio>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace torpor::cli {

// What is stored has its number, what is not has 0 (docs/events.md). `data` lives as long as the call that gets it.
struct SessionEvent {
    int64_t seq = 0;
    std::string_view kind;
    simdjson::dom::element data;
    std::string_view json;
};

// Calls `take` for each event after `last`, which goes on with them, until it returns false, the session is removed, or the client is
// ended. Connects again where the stream ends, also over a restart of torpord; fails if that does not succeed within reconnect_time_max.
Result<void> follow_session(Client& client, const std::string& id, int64_t& last, const std::function<bool(const SessionEvent&)>& take);

struct NewSession {
    std::string folder, model, mode;  // empty: the daemon's choice; the folder is absolute
};
// Its id. The environment that tools may have goes with it.
Result<std::string> create_session(Client& client, const NewSession& session);
// The session that was used last in this folder; `not_found` if there is none.
Result<std::string> last_session(Client& client, const std::string& folder);
// From the beginning of an id.
Result<std::string> complete_session(Client& client, const std::string& beginning);

// The number of the prompt.
Result<int64_t> send_prompt(Client& client, const std::string& id, const std::string& text, const std::string& schema = {});

// Whether a question's rules are all among those that were given: "tool", "tool(exact)", "tool(prefix:*)".
bool is_allowed_by(const std::vector<std::string>& given, std::string_view tool, simdjson::dom::array rules);

// Shows a conversation as it goes on: the model's words on `words`, all else on `around`. Escape sequences become text where the
// stream is a terminal.
class SessionPrinter {
  public:
    SessionPrinter(std::FILE* words, std::FILE* around);
    void take(const SessionEvent& event);
    // The model's words of the turn so far.
    const std::string& said() const { return said_; }
    // To begin a line, whatever stands on this one.
    void fresh_line();

  private:
    void delta(simdjson::dom::element data);
    void text(simdjson::dom::element data);
    void say(std::string_view piece);
    void note(const std::string& line);

    std::FILE* words_;
    std::FILE* around_;
    const bool is_terminal_, has_style_;
    Sanitiser sanitiser_;
    std::map<std::pair<int64_t, int64_t>, size_t> printed_;  // bytes, by answer and block, of this turn
    int64_t turn_ = 0;
    std::string said_;
    bool is_at_begin_ = true;
};

}  // namespace torpor::cli
