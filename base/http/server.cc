#include "base/http/server.hh"

#include "base/http/connections.hh"
#include "base/limits.hh"

#include <poll.h>
#include <pthread.h>

#include <cerrno>
#include <condition_variable>
#include <mutex>

namespace torpor::http {

namespace {

using Clock = std::chrono::steady_clock;

thread_local const Connection* current = nullptr;

class DetachedPeer final : public Detached {
  public:
    DetachedPeer(Connections& connections, uint64_t id, Peer& peer, bool closes)
        : connections_(connections), id_(id), peer_(peer), closes_(closes) {}
    ~DetachedPeer() override {
        if (!given_back_) connections_.forget(id_);
    }
    int socket() const override { return peer_.stream.socket(); }
    ssize_t send(std::string_view bytes) override { return peer_.stream.send_some(bytes); }
    short send_events() const override { return peer_.stream.send_events(); }
    bool keeps_alive() const override { return !closes_; }
    void give_back() override {
        given_back_ = true;
        if (closes_) return connections_.forget(id_);
        connections_.take_back(id_);
    }

  private:
    Connections& connections_;
    const uint64_t id_;
    Peer& peer_;
    const bool closes_;
    bool given_back_ = false;
};

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
    Impl(Hooks hooks, const Limits& limits)
        : limits_(limits), protocol_(std::move(hooks), limits_, [this] { return take_long_slot(); }), connections_(limits_) {}

    Result<void> start() {
        if (!connections_.is_usable()) return fail_errno(Kind::internal, "cannot make an epoll set");
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

    Connections& connections() { return connections_; }
    size_t thread_count() const { return threads_; }
    size_t body_bytes() const { return protocol_.body_bytes().used(); }

  private:
    Result<void> start_thread();
    void run_thread();
    void leave();
    void join_ended();
    void dispatch(uint64_t id);
    void serve(uint64_t id);
    enum class After { wait, close, detached };
    After serve_requests(uint64_t id, Peer& peer);
    After linger(Peer& peer);
    void hand_over(uint64_t id, Peer& peer, TakeConnection take, bool closes);

    const Limits limits_;
    Protocol protocol_;
    Connections connections_;
    std::atomic<size_t> threads_{0};
    std::atomic<size_t> idle_threads_{0};
    std::atomic<int> long_requests_{0};

    std::mutex mutex_;
    std::condition_variable changed_;
    std::vector<pthread_t> ended_;  // to be joined; guarded by mutex_
};

// ---- threads

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
    while (!connections_.is_stopping()) {
        uint64_t id = 0;
        ++idle_threads_;
        const int count = connections_.wait(id, threads_ > http_threads_spare ? idle_ms : -1);
        const bool was_last = --idle_threads_ == 0;
        if (connections_.is_stopping()) break;
        if (count == 0) {
            std::lock_guard lock(mutex_);  // decided one at a time, or all could go at once
            if (threads_ <= http_threads_spare) continue;
            return leave();
        }
        if (count < 0) continue;
        if (was_last && threads_ < http_threads_max) (void)start_thread();  // failing, we serve on alone
        dispatch(id);
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

void Server::Impl::stop(std::chrono::milliseconds time_max) {
    if (!connections_.stop()) return;
    const auto deadline = Clock::now() + time_max;
    const auto no_threads = [&] { return threads_ == 0; };
    std::unique_lock lock(mutex_);
    const bool are_done = changed_.wait_until(lock, deadline, no_threads);
    lock.unlock();
    if (!are_done || !connections_.await_detached(deadline)) connections_.shut_down_all();
    lock.lock();
    changed_.wait(lock, no_threads);
    lock.unlock();
    connections_.await_detached();
    join_ended();
}

// ---- serving

void Server::Impl::dispatch(uint64_t id) {
    if (id == Connections::stop_id) return;
    if (id == Connections::sweep_id) return connections_.sweep();
    if (id < Connections::first_connection_id) return connections_.accept_from(id);
    serve(id);
}

void Server::Impl::hand_over(uint64_t id, Peer& peer, TakeConnection take, bool closes) {
    connections_.detach(peer);
    take(std::make_unique<DetachedPeer>(connections_, id, peer, closes));
}

void Server::Impl::serve(uint64_t id) {
    Peer* peer = connections_.take(id);
    if (peer == nullptr) return;
    const After after = peer->lingers ? linger(*peer) : serve_requests(id, *peer);
    if (after == After::detached) return;  // it may be anywhere by now
    if (after == After::wait && !connections_.is_stopping()) return connections_.wait_again(id, *peer);
    connections_.forget(id);
}

// Whether half a request has come and its rest never will.
bool is_cut_short(const Peer& peer, bool is_open) {
    if (!is_open || peer.stream.is_tls()) return !is_open;  // TLS was read to its end
    pollfd wait{peer.stream.socket(), POLLRDHUP, 0};
    return ::poll(&wait, 1, 0) > 0 && !peer.stream.buffered().empty();
}

// A peer that still sends when its connection is closed may lose the answer that says why: so the end is
// announced, and what comes is thrown away, until the peer closes or linger_time is over.
Server::Impl::After Server::Impl::linger(Peer& peer) {
    if (!peer.lingers) {
        peer.stream.end_sending();
        connections_.linger(peer);
    }
    return peer.stream.discard() ? After::wait : After::close;
}

// Answers all whole requests that have come.
Server::Impl::After Server::Impl::serve_requests(uint64_t id, Peer& peer) {
    if (peer.stream.is_shaking_hands()) {
        const auto step = peer.stream.shake_hands();
        if (step != TlsSession::Handshake::done) return step == TlsSession::Handshake::waits ? After::wait : After::close;
        peer.is_fresh = true;
    }
    for (;;) {
        const bool is_open = peer.stream.fill();
        const std::string_view bytes = peer.stream.buffered();
        if (!is_open && bytes.empty()) return After::close;
        if (bytes.find("\r\n\r\n") == std::string_view::npos) {
            if (const auto refusal = check_partial_head(bytes)) {
                peer.stream.begin_response();
                protocol_.refuse(peer.stream, *refusal);
                return peer.stream.flush() ? linger(peer) : After::close;
            }
            return is_cut_short(peer, is_open) ? After::close : After::wait;
        }
        TakeConnection taker;
        const Connection connection{peer.door, peer.stream, taker};
        current = &connection;
        peer.stream.begin_response();
        const auto [closes, leaves_unread] = protocol_.serve_one(peer.stream);
        current = nullptr;
        peer.in_head = false;
        peer.is_fresh = true;
        if (taker) {
            hand_over(id, peer, std::move(taker), closes);
            return After::detached;
        }
        if (!peer.stream.flush() || connections_.is_stopping()) return After::close;
        if (closes) return leaves_unread || peer.stream.has_input() ? linger(peer) : After::close;
        if (!peer.stream.has_input()) {
            if (idle_threads_ == 0) return After::wait;
            pollfd wait{peer.stream.socket(), POLLIN, 0};
            if (::poll(&wait, 1, static_cast<int>(connection_linger.count())) <= 0) return After::wait;
        }
    }
}

Server::Server(Hooks hooks, const Limits& limits) : impl_(std::make_unique<Impl>(std::move(hooks), limits)) {}

Server::~Server() {
    stop(std::chrono::milliseconds(0));
}

Result<void> Server::add_listener(Fd listening, Door door, std::shared_ptr<const Certificate> certificate) {
    return impl_->connections().add_listener(std::move(listening), door, std::move(certificate));
}
void Server::set_certificate(std::shared_ptr<const Certificate> certificate) {
    impl_->connections().set_certificate(std::move(certificate));
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
    return impl_->connections().count();
}
size_t Server::thread_count() const {
    return impl_->thread_count();
}
size_t Server::body_bytes() const {
    return impl_->body_bytes();
}

}  // namespace torpor::http
