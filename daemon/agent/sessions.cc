#include "daemon/agent/sessions.hh"

#include "base/json.hh"
#include "daemon/agent/limits.hh"

#include <algorithm>

namespace torpor::agent {

std::string_view name_of(store::SessionState state) {
    switch (state) {
        case store::SessionState::idle: return "idle";
        case store::SessionState::running: return "running";
        case store::SessionState::asking: return "asking";
    }
    return "idle";
}

Result<int64_t> Session::append(std::string_view kind, const std::string& body, std::string_view text, const store::SessionChange& change,
                                const Check& check) {
    std::lock_guard lock(mutex_);
    const int64_t at_ms = store::now_ms();
    int64_t seq = 0;
    auto done = store_.write([&](store::Connection& db) -> Result<void> {
        if (check) {
            if (auto checked = check(db); !checked) return checked;
        }
        auto appended = store::append_event(db, id_, kind, body, at_ms, text, change);
        if (!appended) return Failure(appended.error());
        seq = *appended;
        return {};
    });
    if (!done) return Failure(done.error());
    last_seq_ = seq;
    // The event that has the whole block begins like its deltas did.
    std::erase_if(open_, [&](const auto& entry) {
        const std::string& block = entry.first;
        return body.compare(1, block.size(), block) == 0 && body.find_first_of(",}", 1 + block.size()) == 1 + block.size();
    });
    tell(seq, kind, body, at_ms);
    if (change.state) {
        state_ = *change.state;
        tell_state();
    }
    return seq;
}

void Session::tell(int64_t seq, std::string_view kind, std::string body, int64_t at_ms) {
    if (sinks_.empty()) return;
    const auto told = std::make_shared<const Told>(Told{seq, std::string(kind), std::move(body), at_ms});
    for (auto& [number, sink] : sinks_) sink(told);
}

void Session::tell_state() {
    tell(0, "state", fmt::format(R"({{"state":"{}"}})", name_of(state_)), 0);
}

Told Session::delta_of(const std::string& block, std::string_view kind, size_t offset, std::string_view piece) {
    const bool is_output = kind == "output";
    std::string body = "{" + block;
    if (!is_output) body += fmt::format(R"(,"kind":"{}")", kind);
    body += fmt::format(R"(,"offset":{},"text":)", offset);
    append_json_string(body, piece);
    body += '}';
    return {0, is_output ? "output" : "delta", std::move(body), 0};
}

void Session::tell_delta(const std::string& block, std::string_view kind, std::string_view piece) {
    std::lock_guard lock(mutex_);
    Open& open = open_[block];
    open.kind = kind;
    Told told = delta_of(block, kind, open.begins + open.text.size(), piece);
    open.text += piece;
    if (open.text.size() > open_block_bytes_max) {
        size_t cut = open.text.size() - open_block_bytes_max / 2;
        while (cut < open.text.size() && (static_cast<unsigned char>(open.text[cut]) & 0xc0) == 0x80) ++cut;
        open.text.erase(0, cut);
        open.begins += cut;
    }
    tell(0, told.kind, std::move(told.body), 0);
}

void Session::clear_deltas() {
    std::lock_guard lock(mutex_);
    open_.clear();
}

void Session::tell_removed() {
    std::lock_guard lock(mutex_);
    tell(0, "removed", "{}", 0);
    sinks_.clear();
}

Session::Started Session::listen(Sink sink) {
    std::lock_guard lock(mutex_);
    Started started;
    for (const auto& [block, open] : open_) started.now.push_back(std::make_shared<Told>(delta_of(block, open.kind, open.begins, open.text)));
    started.now.push_back(std::make_shared<Told>(Told{0, "state", fmt::format(R"({{"state":"{}"}})", name_of(state_)), 0}));
    started.last_seq = last_seq_;
    started.listening = std::make_shared<Listening>(shared_from_this(), next_sink_);
    sinks_[next_sink_++] = std::move(sink);
    return started;
}

size_t Session::listener_count() const {
    std::lock_guard lock(mutex_);
    return sinks_.size();
}

Session::Listening::~Listening() {
    std::lock_guard lock(session_->mutex_);
    session_->sinks_.erase(number_);
}

Result<std::shared_ptr<Session>> Sessions::create(const store::Session& row, const std::string& created_body) {
    auto done = store_.write([&](store::Connection& db) -> Result<void> {
        if (auto added = store::add_session(db, row); !added) return added;
        auto created = store::append_event(db, row.id, "created", created_body, row.created_at_ms);
        if (!created) return Failure(created.error());
        return {};
    });
    if (!done) return Failure(done.error());
    return open(row.id);
}

Result<std::shared_ptr<Session>> Sessions::open(const std::string& id) {
    // The row is read under the mutex: between the two another one could come, append, and go.
    std::lock_guard lock(mutex_);
    if (const auto found = open_.find(id); found != open_.end()) {
        if (auto session = found->second.lock()) return session;
    }
    auto row = store_.read([&](store::Connection& db) { return store::find_session(db, id); });
    if (!row) return Failure(row.error());
    std::erase_if(open_, [](const auto& entry) { return entry.second.expired(); });
    auto session = std::make_shared<Session>(store_, *row);
    open_[id] = session;
    return session;
}

Result<void> Sessions::remove(const std::string& id) {
    auto session = open(id);
    if (!session) return Failure(session.error());
    auto removed = store_.write([&](store::Connection& db) { return store::remove_session(db, id); });
    if (!removed) return removed;
    (*session)->tell_removed();
    return {};
}

size_t Sessions::open_count() const {
    std::lock_guard lock(mutex_);
    return static_cast<size_t>(std::ranges::count_if(open_, [](const auto& entry) { return !entry.second.expired(); }));
}

}  // namespace torpor::agent
