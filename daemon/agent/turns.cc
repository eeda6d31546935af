#include "daemon/agent/turns.hh"

#include "base/json.hh"
#include "base/log.hh"
#include "daemon/agent/event_body.hh"
#include "daemon/agent/progress.hh"
#include "daemon/agent/result_schema.hh"
#include "daemon/agent/turn.hh"
#include "daemon/agent/turn_threads.hh"

#include <algorithm>
#include <array>
#include <condition_variable>
#include <functional>
#include <limits>
#include <map>
#include <mutex>

namespace torpor::agent {

namespace {

// Its first line, as far as a list has room for it.
std::string title_of(std::string_view text) {
    const size_t begin = std::min(text.find_first_not_of(" \t\r\n"), text.size());
    text = text.substr(begin, text.find_first_of("\r\n", begin) - begin);
    size_t end = 0;
    for (size_t characters = 0; end < text.size(); ++end) {
        const bool is_first = (static_cast<unsigned char>(text[end]) & 0xc0) != 0x80;
        if (is_first && ++characters > title_characters_max) return std::string(text.substr(0, end)) + "…";
    }
    return std::string(text);
}

// Calls `look` with each event after `after` until it returns true; whether it did.
Result<bool> any_event_after(store::Connection& db, const std::string& session, int64_t after, const std::function<bool(const store::Event&)>& look) {
    for (;;) {
        auto events = store::events_after(db, session, after, events_read_max, events_read_bytes_max);
        if (!events) return Failure(events.error());
        if (events->empty()) return false;
        for (const store::Event& event : *events) {
            if (look(event)) return true;
        }
        after = events->back().seq;
    }
}

std::string body_of(std::initializer_list<std::pair<std::string_view, int64_t>> numbers, std::initializer_list<std::pair<std::string_view, std::string_view>> texts) {
    JsonWriter body;
    body.begin_object();
    for (const auto& [name, number] : numbers) body.member(name, number);
    for (const auto& [name, text] : texts) body.member(name, text);
    return body.end_object().take();
}

}  // namespace

class Turns::Impl {
  public:
    explicit Impl(Options options) : options_(std::move(options)) {}

    Result<int64_t> prompt(const std::string& session, Prompt prompt, const std::string& by);
    Result<void> withdraw(const std::string& session, int64_t prompt, const std::string& by);
    Result<int64_t> steer(const std::string& session, std::string text, const std::string& by);
    Result<int64_t> decide(const std::string& session, int64_t question, std::string_view answer, std::string message, const std::string& by);
    Result<bool> interrupt(const std::string& session, const std::string& by);
    Result<bool> interrupt_one(const std::string& session, const std::string& by);
    Result<void> tell_caller_of(const std::string& session, int64_t question, std::string_view answer, const std::string& by);
    Result<std::vector<std::string>> children_of(const std::string& session);
    Result<void> remove(const std::string& session, const std::string& by);
    Result<int64_t> retry(const std::string& session, const std::string& by);
    void set_environment(const std::string& session, const Environment& environment);
    void resume_all();
    void stop() { threads_.stop(); }
    size_t running_count() const { return threads_.running_count(); }

  private:
    std::mutex& order_of(const std::string& session) { return orders_[std::hash<std::string>()(session) % orders_.size()]; }
    Result<Progress> progress_of(const std::string& session);
    Result<store::Session> row_of(const std::string& session);
    Environment environment_of(const std::string& session);
    Result<void> run(const std::string& session, Stopper& stopper);
    Result<void> resume(const std::string& session);

    const Options options_;
    std::array<std::mutex, 64> orders_;  // by a hash of the session: TurnParts::order

    mutable std::mutex mutex_;
    std::map<std::string, std::pair<uint64_t, Environment>> environments_;  // guarded by mutex_; with when it was set
    uint64_t environments_set_ = 0;  // guarded by mutex_

    // The last, so that its threads end before what they use.
    TurnThreads threads_{turns_max, [this](const std::string& session, Stopper& stopper) { return run(session, stopper); }};
};

Result<store::Session> Turns::Impl::row_of(const std::string& session) {
    return options_.store.read([&](store::Connection& db) { return store::find_session(db, session); });
}

Result<Progress> Turns::Impl::progress_of(const std::string& session) {
    Progress progress;
    auto read = options_.store.read([&](store::Connection& db) -> Result<void> {
        auto all = any_event_after(db, session, 0, [&](const store::Event& event) {
            progress.add(event);
            return false;
        });
        if (!all) return Failure(all.error());
        return {};
    });
    if (!read) return Failure(read.error());
    return progress;
}

Result<int64_t> Turns::Impl::prompt(const std::string& session, Prompt prompt, const std::string& by) {
    auto& [text, images, schema] = prompt;
    if (text.empty() && images.empty()) return fail(Kind::invalid, "the prompt is empty; give 'text'");
    if (text.size() > prompt_bytes_max) {
        return fail_limit(Kind::too_large, "prompt_bytes", fmt::format("the prompt is longer than {} bytes; put it into a file and name that", prompt_bytes_max));
    }
    if (images.size() > prompt_images_max) return fail(Kind::invalid, "at most {} images go with a prompt", prompt_images_max);
    if (!schema.empty()) {
        if (auto good = check_result_schema(schema); !good) return Failure(good.error());
    }
    auto open = options_.sessions.open(session);
    if (!open) return Failure(open.error());
    JsonWriter body;
    body.begin_object().member("by", by).member("text", text).key("images").begin_array();
    for (const Image& image : images) {
        if (image.bytes.size() > image_bytes_max) return fail(Kind::too_large, "an image is larger than {} bytes; make it smaller", image_bytes_max);
        std::string hash;
        auto kept = options_.store.write([&](store::Connection& db) -> Result<void> {
            auto put = store::put_content(db, session, image.bytes);
            if (!put) return Failure(put.error());
            hash = *put;
            return {};
        });
        if (!kept) return Failure(kept.error());
        body.begin_object().member("content", hash).member("media_type", image.media_type).member("bytes", image.bytes.size()).end_object();
    }
    body.end_array();
    if (!schema.empty()) body.key("schema").raw(schema);
    body.end_object();

    std::lock_guard lock(order_of(session));
    auto row = row_of(session);
    if (!row) return Failure(row.error());
    auto progress = progress_of(session);
    if (!progress) return Failure(progress.error());
    if (progress->waiting().size() >= prompts_waiting_max) {
        return fail_limit(Kind::busy, "prompts_waiting", fmt::format("{} prompts wait in this session already", prompts_waiting_max));
    }
    if (row->state == store::SessionState::idle && progress->turn().is_under_way) {
        // A fork or an import that ends in the middle of a turn: its calls are the other session's to run.
        auto ended = (*open)->append("turn_ended", body_of({{"turn", progress->turn().number}}, {{"outcome", "interrupted"}, {"reason", "the session was copied up to here"}}));
        if (!ended) return ended;
    }
    store::SessionChange change;
    if (row->state != store::SessionState::asking) change.state = store::SessionState::running;
    if (row->title.empty()) change.title = title_of(text);
    auto seq = (*open)->append("prompt", body.text(), text, change);
    if (seq && change.state) threads_.wake(session);
    return seq;
}

Result<void> Turns::Impl::withdraw(const std::string& session, int64_t prompt, const std::string& by) {
    auto open = options_.sessions.open(session);
    if (!open) return Failure(open.error());
    std::lock_guard lock(order_of(session));
    auto progress = progress_of(session);
    if (!progress) return Failure(progress.error());
    const auto& waiting = progress->waiting();
    if (std::ranges::find(waiting, prompt) == waiting.end()) {
        auto event = options_.store.read([&](store::Connection& db) { return store::find_event(db, session, prompt); });
        if (!event || event->kind != "prompt") return fail(Kind::not_found, "event {} of this session is no prompt", prompt);
        return fail(Kind::conflict, "prompt {} does not wait any more: its turn has begun, or it was withdrawn", prompt);
    }
    store::SessionChange change;
    if (waiting.size() == 1 && !progress->turn().is_under_way) change.state = store::SessionState::idle;
    auto seq = (*open)->append("prompt_withdrawn", body_of({{"prompt", prompt}}, {{"by", by}}), {}, change);
    if (!seq) return Failure(seq.error());
    return {};
}

Result<int64_t> Turns::Impl::steer(const std::string& session, std::string text, const std::string& by) {
    if (text.empty()) return fail(Kind::invalid, "there is nothing to say; give 'text'");
    if (text.size() > prompt_bytes_max) return fail(Kind::too_large, "the text is longer than {} bytes", prompt_bytes_max);
    auto open = options_.sessions.open(session);
    if (!open) return Failure(open.error());
    std::lock_guard lock(order_of(session));
    auto progress = progress_of(session);
    if (!progress) return Failure(progress.error());
    if (!progress->turn().is_under_way) return fail(Kind::conflict, "no turn is under way in this session; send it as a prompt");
    return (*open)->append("steered", body_of({{"turn", progress->turn().number}}, {{"by", by}, {"text", text}}), text);
}

Result<int64_t> Turns::Impl::decide(const std::string& session, int64_t question, std::string_view answer, std::string message, const std::string& by) {
    static constexpr std::array<std::string_view, 4> answers{"once", "session", "always", "no"};
    if (std::ranges::find(answers, answer) == answers.end()) {
        return fail(Kind::invalid, "'{}' is no answer; it is once, session, always or no", answer.substr(0, 64));
    }
    auto open = options_.sessions.open(session);
    if (!open) return Failure(open.error());
    auto asked = options_.store.read([&](store::Connection& db) { return store::find_event(db, session, question); });
    if (!asked && asked.error().kind != Kind::not_found) return Failure(asked.error());
    if (!asked || asked->kind != "question") return fail(Kind::not_found, "event {} of this session is no question", question);
    const EventBody body(asked->body);
    const std::vector<std::string> choices = body.texts("choices");
    if (std::ranges::find(choices, answer) == choices.end()) {
        return fail(Kind::invalid, "'{}' cannot be answered to this question; it takes {}", answer, fmt::join(choices, ", "));
    }
    // In the transaction that stores it: of two that answer at once, one is first.
    const auto first = [&](store::Connection& db) -> Result<void> {
        std::string why_not;
        auto found = any_event_after(db, session, question, [&](const store::Event& event) {
            const EventBody later(event.body);
            if (event.kind == "decided" && later.number("question") == question) {
                why_not = fmt::format("it was answered before, with '{}', by {}", later.text("answer"), later.text("by"));
            } else if (event.kind == "turn_ended" || event.kind == "turn_interrupted") {
                why_not = "its turn is over";
            }
            return !why_not.empty();
        });
        if (!found) return Failure(found.error());
        if (*found) return fail(Kind::conflict, "question {} needs no answer: {}", question, why_not);
        if (answer != "always") return {};
        for (const std::string& rule : body.texts("rules")) {
            auto put = store::put_grant(db, {.id = 0, .folder = body.text("folder"), .rule = rule, .decision = "allow", .by = by, .created_at_ms = store::now_ms()});
            if (!put) return put;
        }
        return {};
    };
    std::lock_guard lock(order_of(session));
    auto seq = (*open)->append("decided", body_of({{"question", question}}, {{"answer", answer}, {"message", message}, {"by", by}}), {},
                               {.state = store::SessionState::running}, first);
    if (!seq) return seq;
    threads_.wake(session);
    if (auto told = tell_caller_of(session, question, answer, by); !told) return Failure(told.error());
    return seq;
}

// Whoever watches the session that began this one was asked, too.
Result<void> Turns::Impl::tell_caller_of(const std::string& session, int64_t question, std::string_view answer, const std::string& by) {
    auto row = row_of(session);
    if (!row || row->caller.empty()) return {};
    auto caller = options_.sessions.open(row->caller);
    if (!caller) return {};  // removed
    auto told = (*caller)->append("agent_decided", body_of({{"question", question}}, {{"session", session}, {"answer", answer}, {"by", by}}));
    return told ? Result<void>() : Failure(told.error());
}

Result<std::vector<std::string>> Turns::Impl::children_of(const std::string& session) {
    return options_.store.read([&](store::Connection& db) { return store::sessions_called_by(db, session); });
}

// And with it those sessions that it began.
Result<bool> Turns::Impl::interrupt(const std::string& session, const std::string& by) {
    auto was = interrupt_one(session, by);
    if (!was) return was;
    auto children = children_of(session);
    if (!children) return Failure(children.error());
    for (const std::string& child : *children) {
        auto done = interrupt_one(child, by);
        if (!done && done.error().kind != Kind::not_found) return done;
    }
    return was;
}

Result<bool> Turns::Impl::interrupt_one(const std::string& session, const std::string& by) {
    auto open = options_.sessions.open(session);
    if (!open) return Failure(open.error());
    std::lock_guard order(order_of(session));
    auto progress = progress_of(session);
    if (!progress) return Failure(progress.error());
    const TurnState& turn = progress->turn();
    if (!turn.is_under_way && progress->waiting().empty()) return false;
    if (!turn.is_under_way || !turn.is_interrupted) {
        const int64_t number = turn.is_under_way ? turn.number : progress->waiting().front();
        auto seq = (*open)->append("turn_interrupted", body_of({{"turn", number}}, {{"by", by}}), {}, {.state = store::SessionState::running});
        if (!seq) return Failure(seq.error());
    }
    if (turn.is_under_way) threads_.stop_turn(session);
    threads_.wake(session);
    return true;
}

Result<void> Turns::Impl::remove(const std::string& session, const std::string& by) {
    auto open = options_.sessions.open(session);
    if (!open) return Failure(open.error());
    struct Heard {
        std::mutex mutex;
        std::condition_variable changed;
        int count = 0;
    };
    const auto heard = std::make_shared<Heard>();
    const auto started = (*open)->listen([heard](const ToldPtr&) {
        std::lock_guard lock(heard->mutex);
        ++heard->count;
        heard->changed.notify_all();
    });
    const auto deadline = std::chrono::steady_clock::now() + turn_end_wait_max;
    for (;;) {
        const int before = [&] {
            std::lock_guard lock(heard->mutex);
            return heard->count;
        }();
        auto was_under_way = interrupt(session, by);  // a prompt that waits begins its turn, and has it ended
        if (!was_under_way) return Failure(was_under_way.error());
        if (!*was_under_way) break;
        std::unique_lock lock(heard->mutex);
        if (!heard->changed.wait_until(lock, deadline, [&] { return heard->count != before; })) {
            return fail(Kind::conflict, "session {} is still busy: its turn was interrupted, but what it does has not ended; try again", session);
        }
    }
    auto children = children_of(session);
    if (!children) return Failure(children.error());
    for (const std::string& child : *children) {
        auto done = remove(child, by);
        if (!done && done.error().kind != Kind::not_found) return done;
    }
    auto row = row_of(session);
    if (!row) return Failure(row.error());
    {
        std::lock_guard order(order_of(session));
        if (auto removed = options_.sessions.remove(session); !removed) return removed;
    }
    const auto caller = row_of(row->caller);
    if (caller && caller->state == store::SessionState::running) threads_.wake(row->caller);  // it waited for this one
    return {};
}

Result<int64_t> Turns::Impl::retry(const std::string& session, const std::string& by) {
    auto open = options_.sessions.open(session);
    if (!open) return Failure(open.error());
    std::lock_guard lock(order_of(session));
    auto progress = progress_of(session);
    if (!progress) return Failure(progress.error());
    const TurnState& turn = progress->turn();
    if (turn.number == 0) return fail(Kind::conflict, "this session has had no turn yet");
    if (turn.is_under_way) return fail(Kind::conflict, "a turn is under way; it ends by itself, or by interrupt");
    if (!turn.can_retry) return fail(Kind::conflict, "the last turn ended well; there is nothing to retry");
    if (!progress->waiting().empty()) return fail(Kind::conflict, "another prompt waits and goes on from here");
    auto seq = (*open)->append("turn_retried", body_of({{"turn", turn.number}}, {{"by", by}}), {}, {.state = store::SessionState::running});
    if (seq) threads_.wake(session);
    return seq;
}

void Turns::Impl::set_environment(const std::string& session, const Environment& environment) {
    Environment allowed = allowed_of(environment);
    std::lock_guard lock(mutex_);
    environments_[session] = {++environments_set_, std::move(allowed)};
    if (environments_.size() <= environments_max) return;
    environments_.erase(std::ranges::min_element(environments_, {}, [](const auto& entry) { return entry.second.first; }));
}

Environment Turns::Impl::environment_of(const std::string& session) {
    {
        std::lock_guard lock(mutex_);
        if (const auto found = environments_.find(session); found != environments_.end()) return found->second.second;
    }
    const auto row = row_of(session);
    return row && !row->caller.empty() ? environment_of(row->caller) : own_environment();
}

Result<void> Turns::Impl::run(const std::string& session, Stopper& stopper) {
    auto open = options_.sessions.open(session);
    if (!open) return Failure(open.error());
    Turn turn({options_, *open, order_of(session), stopper, threads_.is_stopping(), [this, session] { return environment_of(session); },
               [this](const std::string& other) { threads_.wake(other); }});
    return turn.run();
}

// As the log says. A turn that gets no further would end the daemon again and again.
Result<void> Turns::Impl::resume(const std::string& session) {
    auto open = options_.sessions.open(session);
    if (!open) return Failure(open.error());
    auto progress = progress_of(session);
    if (!progress) return Failure(progress.error());
    const TurnState& turn = progress->turn();
    if (!turn.is_under_way) {
        threads_.wake(session);
        return {};
    }
    if (turn.resumes >= turn_resumes_max) {
        JsonWriter body;
        body.begin_object().member("turn", turn.number).member("outcome", "failed");
        body.member("reason", fmt::format("torpord ended {} times during this turn without getting further; retry it if that was not its doing", turn.resumes));
        body.member("limit", "turn_resumes").member("can_retry", true).end_object();
        auto ended = (*open)->append("turn_ended", body.text(), {}, {.state = progress->waiting().empty() ? store::SessionState::idle : store::SessionState::running});
        if (!ended) return Failure(ended.error());
    } else {
        auto resumed = (*open)->append("turn_resumed", body_of({{"turn", turn.number}, {"times", turn.resumes + 1}}, {}));
        if (!resumed) return Failure(resumed.error());
    }
    threads_.wake(session);
    return {};
}

void Turns::Impl::resume_all() {
    // Those that ask wait for their answer as before: nothing of them was under way.
    store::SessionQuery query;
    query.state = store::SessionState::running;
    query.with_archived = query.with_called = true;
    query.count_max = std::numeric_limits<int32_t>::max();
    auto found = options_.store.read([&](store::Connection& db) { return store::find_sessions(db, query); });
    if (!found) return log::error("the sessions that were under way cannot be found: {}", found.error().text());
    for (const store::FoundSession& each : *found) {
        const std::string& session = each.session.id;
        std::lock_guard lock(order_of(session));
        if (auto resumed = resume(session); !resumed) log::error("session {} cannot go on: {}", session, resumed.error().text());
    }
}

Turns::Turns(Options options) : impl_(std::make_unique<Impl>(std::move(options))) {}
Turns::~Turns() = default;

Result<int64_t> Turns::prompt(const std::string& session, Prompt prompt, const std::string& by) {
    return impl_->prompt(session, std::move(prompt), by);
}
Result<void> Turns::withdraw(const std::string& session, int64_t prompt, const std::string& by) {
    return impl_->withdraw(session, prompt, by);
}
Result<int64_t> Turns::steer(const std::string& session, std::string text, const std::string& by) {
    return impl_->steer(session, std::move(text), by);
}
Result<int64_t> Turns::decide(const std::string& session, int64_t question, std::string_view answer, std::string message, const std::string& by) {
    return impl_->decide(session, question, answer, std::move(message), by);
}
Result<bool> Turns::interrupt(const std::string& session, const std::string& by) {
    return impl_->interrupt(session, by);
}
Result<void> Turns::remove(const std::string& session, const std::string& by) {
    return impl_->remove(session, by);
}
Result<int64_t> Turns::retry(const std::string& session, const std::string& by) {
    return impl_->retry(session, by);
}
void Turns::set_environment(const std::string& session, const Environment& environment) {
    impl_->set_environment(session, environment);
}
void Turns::resume_all() {
    impl_->resume_all();
}
void Turns::stop() {
    impl_->stop();
}
size_t Turns::running_count() const {
    return impl_->running_count();
}

}  // namespace torpor::agent
