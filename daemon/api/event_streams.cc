#include "daemon/api/event_streams.hh"

#include "base/log.hh"
#include "daemon/limits.hh"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <array>
#include <cerrno>

namespace torpor::api {

namespace {

using Clock = std::chrono::steady_clock;

// `Connection: close`, since only its end tells where the stream ends.
constexpr std::string_view head =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\nX-Accel-Buffering: no\r\nConnection: close\r\n\r\n"
    "retry: 1000\n\n";
constexpr std::string_view sign_of_life = ":\n\n";

// https://html.spec.whatwg.org/multipage/server-sent-events.html. A body has no line break: it is JSON.
void append_told(std::string& out, int64_t seq, std::string_view kind, std::string_view body, int64_t at_ms) {
    if (seq > 0) out += fmt::format("id: {}\n", seq);
    out += fmt::format("event: {}\ndata: {{", kind);
    const std::string_view members = body.substr(1);
    if (seq > 0) out += fmt::format(R"("seq":{},"at_ms":{}{})", seq, at_ms, members == "}" ? "" : ",");
    out += members;
    out += "\n\n";
}

}  // namespace

EventStreams::EventStreams(store::Store& store)
    : store_(store), epoll_(::epoll_create1(EPOLL_CLOEXEC)), wake_(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {
    epoll_event event{EPOLLIN, {.u64 = 0}};
    ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, wake_.get(), &event);
    thread_ = std::thread([this] { run(); });
}

void EventStreams::add(std::shared_ptr<agent::Session> session, std::unique_ptr<http::Detached> connection, int64_t after, bool follows) {
    auto follower = std::make_unique<Follower>();
    follower->session = std::move(session);
    follower->connection = std::move(connection);
    follower->follows = follows;
    follower->sent_seq = after;
    follower->out = head;
    ++count_;
    std::lock_guard lock(mutex_);
    if (is_stopping_) {
        --count_;
        return;
    }
    follower->id = next_id_++;
    added_.push_back(std::move(follower));
    ::eventfd_write(wake_.get(), 1);
}

void EventStreams::stop() {
    {
        std::lock_guard lock(mutex_);
        if (is_stopping_) return;
        is_stopping_ = true;
        ::eventfd_write(wake_.get(), 1);
    }
    thread_.join();
}

void EventStreams::mark_ready(uint64_t id) {
    std::lock_guard lock(mutex_);
    if (ready_.empty()) ::eventfd_write(wake_.get(), 1);
    ready_.push_back(id);
}

// From now on its inbox gets what comes; what is stored already is read.
void EventStreams::listen(Follower& follower) {
    follower.listening.reset();
    follower.inbox = std::make_shared<Inbox>();
    auto started = follower.session->listen([this, id = follower.id, inbox = follower.inbox](const agent::ToldPtr& told) {
        {
            std::lock_guard lock(inbox->mutex);
            if (inbox->has_lost) return;
            const bool was_empty = inbox->told.empty();
            inbox->told.push_back(told);
            inbox->bytes += told->body.size() + sizeof(agent::Told);
            if (inbox->bytes > follower_queue_bytes_max) {
                inbox->told.clear();
                inbox->has_lost = true;
            }
            if (!was_empty) return;
        }
        mark_ready(id);
    });
    follower.listening = std::move(started.listening);
    follower.stored_seq = started.last_seq;
    follower.now = std::move(started.now);
}

void EventStreams::run() {
    auto next_beat = Clock::now() + follower_beat;
    std::array<epoll_event, 64> events;
    for (;;) {
        const auto wait = std::chrono::ceil<std::chrono::milliseconds>(next_beat - Clock::now());
        const int timeout = followers_.empty() ? -1 : static_cast<int>(std::max<int64_t>(0, wait.count()));
        const int count = ::epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), timeout);
        std::vector<uint64_t> ready;
        std::vector<std::unique_ptr<Follower>> added;
        {
            std::lock_guard lock(mutex_);
            eventfd_t ignored = 0;
            ::eventfd_read(wake_.get(), &ignored);
            ready.swap(ready_);
            added.swap(added_);
            if (is_stopping_) break;
        }
        for (auto& follower : added) {
            const uint64_t id = follower->id;
            if (followers_.empty()) next_beat = Clock::now() + follower_beat;
            listen(*follower);
            poll(*follower, false);
            followers_.emplace(id, std::move(follower));
            ready.push_back(id);
        }
        for (int i = 0; i < count; ++i) {
            const uint32_t happened = events[static_cast<size_t>(i)].events;
            const uint64_t id = events[static_cast<size_t>(i)].data.u64;  // a copy: the struct is packed
            if (id == 0) continue;
            if ((happened & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0) {
                count_ -= followers_.erase(id);
            } else {
                ready.push_back(id);
            }
        }
        for (const uint64_t id : ready) {
            const auto found = followers_.find(id);
            if (found != followers_.end() && !pump(*found->second)) count_ -= followers_.erase(id);
        }
        if (Clock::now() >= next_beat) {
            beat();
            next_beat = Clock::now() + follower_beat;
        }
    }
    followers_.clear();
    count_ = 0;
}

void EventStreams::poll(Follower& follower, bool wants_send) {
    uint32_t wanted = EPOLLRDHUP;
    if (wants_send) wanted |= follower.connection->send_events() == POLLIN ? EPOLLIN : EPOLLOUT;
    epoll_event event{wanted, {.u64 = follower.id}};
    if (::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, follower.connection->socket(), &event) != 0 && errno == ENOENT) {
        ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, follower.connection->socket(), &event);
    }
    follower.is_polled = wants_send;
}

bool EventStreams::pump(Follower& follower) {
    for (;;) {
        if (!flush(follower)) return false;
        if (!follower.out.empty()) return true;  // it takes no more now
        if (follower.is_last) return false;
        if (!refill(follower)) return false;
        if (follower.out.empty() && !follower.is_last) {
            if (follower.is_polled) poll(follower, false);
            return true;
        }
    }
}

// Sends what it takes. False: it has gone.
bool EventStreams::flush(Follower& follower) {
    while (follower.out_at < follower.out.size()) {
        const ssize_t count = follower.connection->send(std::string_view(follower.out).substr(follower.out_at));
        if (count < 0) return false;
        if (count == 0) {
            poll(follower, true);
            return true;
        }
        follower.out_at += static_cast<size_t>(count);
        follower.took_at = Clock::now();
    }
    follower.out = std::string();  // its memory, too: most followers wait most of the time
    follower.out_at = 0;
    return true;
}

// The next bytes for it, if there are any. False: something is wrong with the store.
bool EventStreams::refill(Follower& follower) {
    if (follower.sent_seq < follower.stored_seq) return read_stored(follower);
    if (!follower.follows) {
        follower.is_last = true;
        return true;
    }
    for (const agent::ToldPtr& told : follower.now) append_told(follower.out, told->seq, told->kind, told->body, told->at_ms);
    follower.now.clear();
    std::deque<agent::ToldPtr> told;
    bool has_lost = false;
    {
        std::lock_guard lock(follower.inbox->mutex);
        told.swap(follower.inbox->told);
        follower.inbox->bytes = 0;
        has_lost = follower.inbox->has_lost;
    }
    if (has_lost) {
        listen(follower);
        return refill(follower);
    }
    for (const agent::ToldPtr& one : told) {
        if (one->seq > 0 && one->seq <= follower.sent_seq) continue;
        append_told(follower.out, one->seq, one->kind, one->body, one->at_ms);
        if (one->seq > 0) follower.sent_seq = one->seq;
        if (one->kind == "removed") follower.is_last = true;
    }
    return true;
}

bool EventStreams::read_stored(Follower& follower) {
    auto events = store_.read([&](store::Connection& db) {
        return store::events_after(db, follower.session->id(), follower.sent_seq, follower_read_events_max, follower_read_bytes_max);
    });
    if (!events) {
        if (events.error().kind != Kind::not_found) log::warning("session {} cannot be followed: {}", follower.session->id(), events.error().text());
        return false;
    }
    for (const store::Event& event : *events) {
        if (event.seq > follower.stored_seq) break;  // its inbox has it, in its place among what is not stored
        append_told(follower.out, event.seq, event.kind, event.body, event.at_ms);
        follower.sent_seq = event.seq;
    }
    if (events->empty()) follower.sent_seq = follower.stored_seq;
    return true;
}

// A sign of life for those who have nothing to take, and the end for those who take nothing.
void EventStreams::beat() {
    for (auto next = followers_.begin(); next != followers_.end();) {
        Follower& follower = *next->second;
        bool stays = true;
        if (!follower.out.empty()) {
            stays = Clock::now() - follower.took_at < follower_stall_max;
        } else {
            follower.out = sign_of_life;
            stays = pump(follower);
        }
        if (!stays) --count_;
        next = stays ? std::next(next) : followers_.erase(next);
    }
}

}  // namespace torpor::api
