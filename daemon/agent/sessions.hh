// The sessions of one daemon: each a log in the store, and a small object in memory only while somebody listens or a turn is
// under way.
//
//     auto session = sessions.open(id);                             // shared: everybody who asks gets the same
//     auto seq = (*session)->append("prompt", body, {...});         // on disk, and told to all who listen, when it returns
//     auto listening = (*session)->listen(sink);                    // what comes from now on
//
// Within one session events are appended and told one after the other (mutex_), so all who listen see one order; the
// store commits different sessions' events in groups.
#pragma once

#include "base/error.hh"
#include "store/sessions.hh"
#include "store/store.hh"

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

namespace torpor::agent {

// What those who listen are told: an event of the log, or what is not stored (seq 0; docs/events.md).
struct Told {
    int64_t seq = 0;
    std::string kind;
    std::string body;      // a JSON object
    int64_t at_ms = 0;
};
using ToldPtr = std::shared_ptr<const Told>;

class Session : public std::enable_shared_from_this<Session> {
  public:
    Session(store::Store& store, const store::Session& row) : store_(store), id_(row.id), last_seq_(row.last_seq), state_(row.state) {}

    const std::string& id() const { return id_; }

    // As store::append_event. Blocks on the disk. `check` runs in the same transaction before it: a failure of it is
    // returned and nothing is appended (the first answer to a question wins by this). Where `change` has a state, those who
    // listen are told it (`state`) after the event.
    using Check = std::function<Result<void>(store::Connection&)>;
    Result<int64_t> append(std::string_view kind, const std::string& body, std::string_view text = {},
                           const store::SessionChange& change = {}, const Check& check = {});

    // Told to those who listen now, kept nowhere but for late comers: `open_` holds what of a block was told since its
    // beginning, so that they can be given it whole (its end only, where it is longer than open_block_bytes_max). `block` names it: what comes before `kind` in its JSON, without braces
    // (`"turn":3,"answer":1,"block":0`); the event that ends the block clears it. With the kind "output" (`"turn":3,"call":"c1"`)
    // it is told as `output`, not as `delta`.
    void tell_delta(const std::string& block, std::string_view kind, std::string_view piece);
    void clear_deltas();
    // The session was removed: those who listen are told (`removed`), and nothing after it.
    void tell_removed();

    // `sink` is called for each event that is appended from now on, in order, and for what is not stored, on the thread
    // that appends, under this session's mutex: it queues, and blocks for nothing. What is stored already the listener
    // reads itself (store::events_after), up to the number that this returns. Destroying the Listening ends it; not
    // within its sink.
    class Listening;
    struct Started {
        std::shared_ptr<Listening> listening;
        int64_t last_seq = 0;              // stored; what comes later is told
        std::vector<ToldPtr> now = {};     // to be told after that: the blocks that are under way, and the state
    };
    using Sink = std::function<void(const ToldPtr&)>;
    Started listen(Sink sink);
    size_t listener_count() const;

  private:
    friend class Listening;
    // A block under way: what was told of it, from `begins` on.
    struct Open {
        std::string_view kind;  // a literal
        size_t begins = 0;
        std::string text;
    };
    void tell(int64_t seq, std::string_view kind, std::string body, int64_t at_ms);
    void tell_state();
    static Told delta_of(const std::string& block, std::string_view kind, size_t offset, std::string_view piece);

    store::Store& store_;
    const std::string id_;
    mutable std::mutex mutex_;
    std::map<uint64_t, Sink> sinks_;               // guarded by mutex_
    uint64_t next_sink_ = 1;                       // guarded by mutex_
    std::map<std::string, Open> open_;             // guarded by mutex_; by block
    int64_t last_seq_;                             // guarded by mutex_
    store::SessionState state_;                    // guarded by mutex_
};

// Ends its listening when it is destroyed.
class Session::Listening {
  public:
    Listening(std::shared_ptr<Session> session, uint64_t number) : session_(std::move(session)), number_(number) {}
    ~Listening();
    Listening(const Listening&) = delete;
    Listening& operator=(const Listening&) = delete;

  private:
    const std::shared_ptr<Session> session_;
    const uint64_t number_;
};

// "idle", "running" or "asking".
std::string_view name_of(store::SessionState state);

class Sessions {
  public:
    explicit Sessions(store::Store& store) : store_(store) {}

    // A new one; `created` is its first event.
    Result<std::shared_ptr<Session>> create(const store::Session& row, const std::string& created_body);
    // `not_found` if there is none.
    Result<std::shared_ptr<Session>> open(const std::string& id);
    // For good, with all its events. Its turn must have ended.
    Result<void> remove(const std::string& id);
    size_t open_count() const;

  private:
    store::Store& store_;
    mutable std::mutex mutex_;
    std::map<std::string, std::weak_ptr<Session>> open_;  // guarded by mutex_
};

}  // namespace torpor::agent
