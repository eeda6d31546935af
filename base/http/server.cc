#include "base/http/server.hh"

#include "base/limits.hh"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <cerrno>
#include <condition_variable>
#include <mutex>
#include <unordered_map>

namespace torpor::http {

namespace {

using Clock = std::chrono::steady_clock;

thread_local const Connection* current = nullptr;

constexpr uint64_t stop_id = 0;
constexpr uint64_t sweep_id = 1;
constexpr uint64_t first_listener_id = 2;
constexpr uint64_t first_connection_id = 1'000;
constexpr std::chrono::seconds sweep_interval{2};

}  // namespace

const Connection* current_connection() {
    return current;
}

void detach_connection(TakeConnection take) {
    current->taker = std::move(take);
    current->stream.mute();
}

class Server::Impl {
  public:
    Impl(Hooks hooks, const Limits& limits) : limits_(limits), protocol_(std::move(hooks), limits_, [this] { return take_long_slot(); }) {
        epoll_ = Fd(::epoll_create1(EPOLL_CLOEXEC));
        stop_event_ = Fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
        sweep_timer_ = Fd(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
        arm(stop_event_.get(), stop_id, EPOLLIN, EPOLL_CTL_ADD);
        arm(sweep_timer_.get(), sweep_id, EPOLLIN | EPOLLET, EPOLL_CTL_ADD);
    }

    Result<void> add_listener(Fd listening, Door door) {
        std::lock_guard lock(mutex_);
        const uint64_t id = first_listener_id + listeners_.size();
        const int fd = listening.get();
        listeners_.push_back({std::move(listening), door});
        if (!arm(fd, id, EPOLLIN | EPOLLONESHOT, EPOLL_CTL_ADD)) {
            return fail_errno(Kind::internal, "cannot listen");
        }
        return {};
    }

    Result<void> start() {
        if (!epoll_ || !stop_event_ || !sweep_timer_) return fail_errno(Kind::internal, "cannot make an epoll set");
        return start_thread();
    }

    void stop(std::chrono::milliseconds deadline);

    std::shared_ptr<LongSlot> take_long_slot() {
        constexpr int long_max = static_cast<int>(http_threads_max - http_threads_reserve);
        if (long_requests_.fetch_add(1) >= long_max) {
            long_requests_.fetch_sub(1);
            return nullptr;
        }
        return std::make_shared<LongSlot>(&long_requests_);
    }

    size_t connection_count() const {
        std::lock_guard lock(mutex_);
        return connections_.size();
    }
    size_t thread_count() const { return threads_; }
    size_t body_bytes() const { return protocol_.body_bytes().used(); }

    // Detached connections: called by their handles.
    void take_back(uint64_t id);
    void forget(uint64_t id);

  private:
    struct Peer {
        Peer(Fd socket, Door which, const Limits& limits) : stream(std::move(socket), limits), door(which) {}
        SocketStream stream;
        Door door;
        bool waiting = false;        // in the epoll set, nobody's; guarded by mutex_
        bool armed = false;          // known to the epoll set
        bool in_head = false;        // part of a head has come
        bool lingers = false;        // refused: only read on until the peer closes
        bool detached = false;       // somebody else answers; guarded by mutex_
        Clock::time_point deadline;  // of the wait; guarded by mutex_
    };
    struct Listener {
        Fd socket;
        Door door;
    };

    bool arm(int fd, uint64_t id, uint32_t events, int operation) {
        epoll_event event{};
        event.events = events;
        event.data.u64 = id;
        return ::epoll_ctl(epoll_.get(), operation, fd, &event) == 0;
    }

    Result<void> start_thread();
    void run_thread();
    void leave();
    void join_ended();
    void dispatch(uint64_t id);
    void accept_from(uint64_t id);
    void serve(uint64_t id);
    enum class After { wait, close, detached };
    After serve_requests(uint64_t id, Peer& peer);
    After linger(Peer& peer);
    void hand_over(uint64_t id, Peer& peer, TakeConnection take, bool closes);
    void wait_again(uint64_t id, Peer& peer);
    void sweep();
    void set_sweep(bool on);

    const Limits limits_;
    Protocol protocol_;
    Fd epoll_, stop_event_, sweep_timer_;
    std::atomic<bool> stopping_{false};
    std::atomic<size_t> threads_{0};
    std::atomic<size_t> idle_threads_{0};
    std::atomic<int> long_requests_{0};

    mutable std::mutex mutex_;
    std::condition_variable changed_;
    std::vector<Listener> listeners_;                                // guarded by mutex_
    std::unordered_map<uint64_t, std::unique_ptr<Peer>> connections_;  // the map: guarded by mutex_
    uint64_t next_id_ = first_connection_id;                         // guarded by mutex_
    bool sweeping_ = false;                                          // guarded by mutex_
    bool starved_ = false;                                           // no descriptor for a connection; guarded by mutex_
    size_t detached_ = 0;                                            // guarded by mutex_
    std::vector<pthread_t> ended_;                                   // to be joined; guarded by mutex_
};

namespace {

template <class Impl, class Peer>
class DetachedPeer final : public Detached {
  public:
    DetachedPeer(Impl& server, uint64_t id, Peer& peer, bool closes)
        : server_(server), id_(id), peer_(peer), closes_(closes) {}
    ~DetachedPeer() override {
        if (!given_back_) server_.forget(id_);
    }
    int socket() const override { return peer_.stream.socket(); }
    ssize_t send(std::string_view bytes) override { return peer_.stream.send_some(bytes); }
    bool keeps_alive() const override { return !closes_; }
    void give_back() override {
        given_back_ = true;
        if (closes_) return server_.forget(id_);
        server_.take_back(id_);
    }

  private:
    Impl& server_;
    const uint64_t id_;
    Peer& peer_;
    const bool closes_;
    bool given_back_ = false;
};

}  // namespace

Result<void> Server::Impl::start_thread() {
    join_ended();
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, http_thread_stack_bytes);
    ++threads_;
    pthread_t thread{};
    const int code = pthread_create(
        &thread, &attributes,
        [](void* self) -> void* {
            static_cast<Impl*>(self)->run_thread();
            return nullptr;
        },
        this);
    pthread_attr_destroy(&attributes);
    if (code != 0) {
        --threads_;
        errno = code;
        return fail_errno(Kind::unavailable, "cannot start another thread");
    }
    return {};
}

void Server::Impl::run_thread() {
    const int idle_ms = static_cast<int>(std::chrono::milliseconds(http_thread_idle_max).count());
    while (!stopping_) {
        epoll_event event{};
        ++idle_threads_;
        const int count = ::epoll_wait(epoll_.get(), &event, 1, threads_ > http_threads_spare ? idle_ms : -1);
        const bool was_last = --idle_threads_ == 0;
        if (stopping_) break;
        if (count == 0) {
            std::lock_guard lock(mutex_);  // decided one at a time, or all could go at once
            if (threads_ <= http_threads_spare) continue;
            return leave();
        }
        if (count < 0) continue;
        if (was_last && threads_ < http_threads_max) (void)start_thread();  // failing, we serve on alone
        dispatch(event.data.u64);
    }
    std::lock_guard lock(mutex_);
    leave();
}

// mutex_ held.
void Server::Impl::leave() {
    ended_.push_back(pthread_self());
    --threads_;
    changed_.notify_all();
}

void Server::Impl::join_ended() {
    std::vector<pthread_t> ended;
    {
        std::lock_guard lock(mutex_);
        ended.swap(ended_);
    }
    for (const pthread_t thread : ended) pthread_join(thread, nullptr);
}

void Server::Impl::dispatch(uint64_t id) {
    if (id == stop_id) return;
    if (id == sweep_id) return sweep();
    if (id < first_connection_id) return accept_from(id);
    serve(id);
}

void Server::Impl::accept_from(uint64_t id) {
    int listening = -1;
    Door door{};
    {
        std::lock_guard lock(mutex_);
        if (stopping_ || id - first_listener_id >= listeners_.size()) return;
        listening = listeners_[id - first_listener_id].socket.get();
        door = listeners_[id - first_listener_id].door;
    }
    Fd socket(::accept4(listening, nullptr, nullptr, SOCK_CLOEXEC));
    if (!socket && (errno == EMFILE || errno == ENFILE)) {
        std::lock_guard lock(mutex_);
        starved_ = true;  // sweep() tries again: at once would be for ever
        return set_sweep(true);
    }
    arm(listening, id, EPOLLIN | EPOLLONESHOT, EPOLL_CTL_MOD);
    if (!socket) return;
    if (door == Door::tcp) {
        const int on = 1;
        ::setsockopt(socket.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    }
    uint64_t connection = 0;
    Peer* peer = nullptr;
    {
        std::lock_guard lock(mutex_);
        if (stopping_ || connections_.size() >= limits_.connections) return;
        connection = next_id_++;
        peer = connections_.emplace(connection, std::make_unique<Peer>(std::move(socket), door, limits_)).first->second.get();
        set_sweep(true);
    }
    wait_again(connection, *peer);
}

// A request that is there already (a client that does not wait for answers) is served as soon as the peer
// can take bytes, which is at once.
void Server::Impl::wait_again(uint64_t id, Peer& peer) {
    const int fd = peer.stream.socket();
    peer.stream.rest();
    std::lock_guard lock(mutex_);
    const bool has_bytes = !peer.stream.buffered().empty();
    const bool fresh_head = !peer.in_head && has_bytes;
    const uint32_t events = peer.detached && has_bytes ? EPOLLIN | EPOLLOUT : EPOLLIN;
    if (fresh_head) peer.in_head = true;
    if (fresh_head || !(peer.in_head || peer.lingers)) {
        peer.deadline = Clock::now() + (peer.in_head ? limits_.head_time : limits_.idle_time);
    }
    const int operation = peer.armed ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
    peer.waiting = true;
    peer.armed = true;
    peer.detached = false;
    if (stopping_ || !arm(fd, id, events | EPOLLRDHUP | EPOLLONESHOT, operation)) connections_.erase(id);
}

void Server::Impl::forget(uint64_t id) {
    std::lock_guard lock(mutex_);
    const auto found = connections_.find(id);
    if (found == connections_.end()) return;
    if (found->second->detached) --detached_;
    connections_.erase(found);
    if (stopping_) changed_.notify_all();
}

void Server::Impl::take_back(uint64_t id) {
    Peer* peer = nullptr;
    {
        std::lock_guard lock(mutex_);
        peer = connections_.at(id).get();
        --detached_;
        if (stopping_) changed_.notify_all();
    }
    wait_again(id, *peer);
}

void Server::Impl::hand_over(uint64_t id, Peer& peer, TakeConnection take, bool closes) {
    {
        std::lock_guard lock(mutex_);
        peer.detached = true;
        ++detached_;
    }
    take(std::make_unique<DetachedPeer<Impl, Peer>>(*this, id, peer, closes));
}

void Server::Impl::serve(uint64_t id) {
    Peer* peer = nullptr;
    {
        std::lock_guard lock(mutex_);
        const auto found = connections_.find(id);
        if (found == connections_.end() || !found->second->waiting) return;
        peer = found->second.get();
        peer->waiting = false;
    }
    const After after = peer->lingers ? linger(*peer) : serve_requests(id, *peer);
    if (after == After::detached) return;  // it may be anywhere by now
    if (after == After::wait && !stopping_) return wait_again(id, *peer);
    forget(id);
}

// A peer that still sends when its connection is closed may lose the answer that says why: so the end is
// announced, and what comes is thrown away, until the peer closes or linger_time is over.
Server::Impl::After Server::Impl::linger(Peer& peer) {
    if (!std::exchange(peer.lingers, true)) {
        peer.stream.end_sending();
        std::lock_guard lock(mutex_);
        peer.deadline = Clock::now() + linger_time;
    }
    return peer.stream.discard() ? After::wait : After::close;
}

// Answers all whole requests that have come.
Server::Impl::After Server::Impl::serve_requests(uint64_t id, Peer& peer) {
    for (;;) {
        if (!peer.stream.fill() && peer.stream.buffered().empty()) return After::close;
        const std::string_view bytes = peer.stream.buffered();
        if (bytes.find("\r\n\r\n") == std::string_view::npos) {
            if (const auto refusal = check_partial_head(bytes)) {
                peer.stream.begin_response();
                protocol_.refuse(peer.stream, *refusal);
                return peer.stream.flush() ? linger(peer) : After::close;
            }
            pollfd wait{peer.stream.socket(), POLLRDHUP, 0};
            const bool is_over = ::poll(&wait, 1, 0) > 0 && !bytes.empty();
            return is_over ? After::close : After::wait;  // half a request and no more to come
        }
        TakeConnection taker;
        const Connection connection{peer.door, peer.stream, taker};
        current = &connection;
        peer.stream.begin_response();
        const auto [closes, leaves_unread] = protocol_.serve_one(peer.stream);
        current = nullptr;
        peer.in_head = false;
        if (taker) {
            hand_over(id, peer, std::move(taker), closes);
            return After::detached;
        }
        if (!peer.stream.flush() || stopping_) return After::close;
        if (closes) return leaves_unread || !peer.stream.buffered().empty() ? linger(peer) : After::close;
        if (peer.stream.buffered().empty()) {
            if (idle_threads_ == 0) return After::wait;
            pollfd wait{peer.stream.socket(), POLLIN, 0};
            if (::poll(&wait, 1, static_cast<int>(connection_linger.count())) <= 0) return After::wait;
        }
    }
}

void Server::Impl::set_sweep(bool on) {
    if (sweeping_ == on) return;
    sweeping_ = on;
    itimerspec when{};
    if (on) when.it_interval.tv_sec = when.it_value.tv_sec = sweep_interval.count();
    ::timerfd_settime(sweep_timer_.get(), 0, &when, nullptr);
}

void Server::Impl::sweep() {
    uint64_t ticks = 0;
    (void)!::read(sweep_timer_.get(), &ticks, sizeof ticks);
    const auto now = Clock::now();
    std::lock_guard lock(mutex_);
    std::erase_if(connections_, [&](const auto& entry) { return entry.second->waiting && entry.second->deadline < now; });
    if (std::exchange(starved_, false)) {
        for (size_t i = 0; i < listeners_.size(); ++i) {
            arm(listeners_[i].socket.get(), first_listener_id + i, EPOLLIN | EPOLLONESHOT, EPOLL_CTL_MOD);
        }
    }
    if (connections_.empty()) set_sweep(false);
}

void Server::Impl::stop(std::chrono::milliseconds deadline) {
    std::unique_lock lock(mutex_);
    if (stopping_.exchange(true)) return;
    listeners_.clear();
    std::erase_if(connections_, [](const auto& entry) { return entry.second->waiting; });
    const uint64_t one = 1;
    (void)!::write(stop_event_.get(), &one, sizeof one);  // level-triggered: wakes every waiting thread
    const auto is_over = [&] { return threads_ == 0 && detached_ == 0; };
    if (!changed_.wait_for(lock, deadline, is_over)) {
        for (auto& [id, peer] : connections_) ::shutdown(peer->stream.socket(), SHUT_RDWR);
    }
    changed_.wait(lock, is_over);
    lock.unlock();
    join_ended();
}

Server::Server(Hooks hooks, const Limits& limits) : impl_(std::make_unique<Impl>(std::move(hooks), limits)) {}

Server::~Server() {
    stop(std::chrono::milliseconds(0));
}

Result<void> Server::add_listener(Fd listening, Door door) {
    return impl_->add_listener(std::move(listening), door);
}
Result<void> Server::start() {
    return impl_->start();
}
void Server::stop(std::chrono::milliseconds deadline) {
    impl_->stop(deadline);
}
std::shared_ptr<LongSlot> Server::take_long_slot() {
    return impl_->take_long_slot();
}
size_t Server::connection_count() const {
    return impl_->connection_count();
}
size_t Server::thread_count() const {
    return impl_->thread_count();
}
size_t Server::body_bytes() const {
    return impl_->body_bytes();
}

}  // namespace torpor::http
