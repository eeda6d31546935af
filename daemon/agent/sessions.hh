// The sessions of one daemon: each a log in the store, and a small object in memory only while somebody listens or a turn is
// under way.
//
//     auto session = sessions.open(id);                             // shared: everybody who asks gets the same
//     auto seq = (*session)->append("prompt", body, {...});         // on disk, and told to all who listen, when it returns
//     auto listening = (*session)->listen(after, sink);             // what is stored after it, then what comes
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

// What those who listen are told: an event of the log, or a piece of what will be one (seq 0: not stored; `kind` "delta").
struct Told {
    int64_t seq = 0;
    std::string kind;
    std::string body;      // a JSON object
    int64_t at_ms = 0;
};
using ToldPtr = std::shared_ptr<const Told>;

class Session {
  public:
    Session(store::Store& store, std::string id) : store_(store), id_(std::move(id)) {}

    const std::string& id() const { return id_; }

    // As store::append_event. Blocks on the disk. `check` runs in the same transaction before it: a failure of it is
    // returned and nothing is appended (the first answer to a question wins by this). Where `change` has a state, those who
    // listen are told it (`state`) after the event.
    using Check = std::function<Result<void>(store::Connection&)>;
    Result<int64_t> append(std::string_view kind, const std::string& body, std::string_view text = {},
                           const store::SessionChange& change = {}, const Check& check = {});

    // Told to those who listen now, kept nowhere but for late comers: `open` holds what of a block was told since its
    // beginning, so that they can be given it whole. `block` names it: what comes before `kind` in its JSON, without braces
    // (`"turn":3,"answer":1,"block":0`); the event that ends the block clears it. With the kind "output" (`"turn":3,"call":"c1"`)
    // it is told as `output`, not as `delta`.
    void tell_delta(const std::string& block, std::string_view kind, std::string_view piece);
    void clear_deltas();

    // `sink` is called for each event after `after` that is appended from now on, in order, and for deltas, on the thread
    // that appends, under this session's mutex: it queues, and blocks for nothing. What is stored already the listener
    // reads itself (store::events_after), up to the number that this returns. Destroying the Listening ends it.
    class Listening;
    struct Started {
        std::shared_ptr<Listening> listening;
        int64_t last_seq = 0;              // stored; what comes later is told
        std::vector<ToldPtr> open = {};    // deltas of blocks that are under way
    };
    using Sink = std::function<void(const ToldPtr&)>;
    Result<Started> listen(Sink sink);
    size_t listener_count() const;

  private:
    friend class Listening;
    store::Store& store_;
    const std::string id_;
    mutable std::mutex mutex_;
    std::map<uint64_t, Sink> sinks_;               // guarded by mutex_
    uint64_t next_sink_ = 1;                       // guarded by mutex_
    std::map<std::string, std::string> open_;      // guarded by mutex_; by block: what was told of it (bounded, limits.hh)
};

class Sessions {
  public:
    explicit Sessions(store::Store& store) : store_(store) {}

    // A new one; `created` is its first event.
    Result<std::shared_ptr<Session>> create(const store::Session& row, const std::string& created_body);
    // `not_found` if there is none.
    Result<std::shared_ptr<Session>> open(const std::string& id);
    size_t open_count() const;

  private:
    store::Store& store_;
    mutable std::mutex mutex_;
    std::map<std::string, std::weak_ptr<Session>> open_;  // guarded by mutex_
};

}  // namespace torpor::agent
