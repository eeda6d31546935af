// A session as a file: lines of JSON that can be read in again, or Markdown for people. docs/events.md has the format.
#pragma once

#include "base/error.hh"
#include "daemon/agent/progress.hh"
#include "store/sessions.hh"
#include "store/store.hh"

#include <cstdint>
#include <set>
#include <string>
#include <string_view>

namespace torpor::api {

inline constexpr int event_version = 1;  // of docs/events.md

// What a search finds an event by: what people and models said.
std::string text_of(const store::Event& event);

// Gives the file piece by piece, so that a long session is never in memory whole.
class SessionWriter {
  public:
    SessionWriter(store::Store& store, const store::Session& row, bool is_markdown) : store_(store), row_(row), is_markdown_(is_markdown) {}
    // The next piece; empty at the end.
    Result<std::string> next();

  private:
    Result<void> write_event(store::Connection& db, const store::Event& event, std::string& out);

    store::Store& store_;
    const store::Session row_;  // as it was when the writing began; what came later is not in it
    const bool is_markdown_;
    bool has_begun_ = false;
    int64_t at_ = 0;
    std::set<std::string> contents_ = {};  // written already
};

// Puts a session made of such lines into the database, within the caller's transaction: on an error all of it is to be undone.
class SessionReader {
  public:
    // `row` has the new id, and the folder if another than the file's is wanted.
    SessionReader(store::Connection& db, store::Session& row, std::string by) : db_(db), row_(row), by_(std::move(by)) {}
    // `invalid`, with the number of the line, if it is no such file.
    Result<void> read(std::string_view text);
    const agent::Progress& progress() const { return progress_; }

  private:
    Result<void> take(std::string_view line);
    Result<void> create(const store::Event& event);

    store::Connection& db_;
    store::Session& row_;
    const std::string by_;
    agent::Progress progress_;
    int64_t seq_ = 0;
};

}  // namespace torpor::api
