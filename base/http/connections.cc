#include "base/http/connections.hh"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <cerrno>

namespace torpor::http {

namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::seconds sweep_interval{2};

}  // namespace

Connections::Connections(const Limits& limits)
    : limits_(limits), epoll_(::epoll_create1(EPOLL_CLOEXEC)), stop_event_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      sweep_timer_(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK)) {
    arm(stop_event_.get(), stop_id, EPOLLIN, EPOLL_CTL_ADD);
    arm(sweep_timer_.get(), sweep_id, EPOLLIN | EPOLLET, EPOLL_CTL_ADD);
}

bool Connections::arm(int fd, uint64_t id, uint32_t events, int operation) {
    epoll_event event{};
    event.events = events;
    event.data.u64 = id;
    return ::epoll_ctl(epoll_.get(), operation, fd, &event) == 0;
}

Result<void> Connections::add_listener(Fd listening, Door door, std::shared_ptr<const Certificate> certificate) {
    std::lock_guard lock(mutex_);
    const uint64_t id = first_listener_id + listeners_.size();
    const int fd = listening.get();
    listeners_.push_back({std::move(listening), door, std::move(certificate)});
    if (!arm(fd, id, EPOLLIN | EPOLLONESHOT, EPOLL_CTL_ADD)) {
        return fail_errno(Kind::internal, "cannot listen");
    }
    return {};
}

void Connections::set_certificate(std::shared_ptr<const Certificate> certificate) {
    std::lock_guard lock(mutex_);
    for (Listener& listener : listeners_) {
        if (listener.certificate) listener.certificate = certificate;
    }
}

int Connections::wait(uint64_t& id, int timeout_ms) {
    epoll_event event{};
    const int count = ::epoll_wait(epoll_.get(), &event, 1, timeout_ms);
    id = event.data.u64;
    return count;
}

void Connections::accept_from(uint64_t id) {
    int listening = -1;
    Door door{};
    std::shared_ptr<const Certificate> certificate;
    {
        std::lock_guard lock(mutex_);
        if (stopping_ || id - first_listener_id >= listeners_.size()) return;
        const Listener& listener = listeners_[id - first_listener_id];
        listening = listener.socket.get();
        door = listener.door;
        certificate = listener.certificate;
    }
    // OpenSSL reads and writes by itself, so its sockets must not wait; for ours each call says so.
    Fd socket(::accept4(listening, nullptr, nullptr, certificate ? SOCK_CLOEXEC | SOCK_NONBLOCK : SOCK_CLOEXEC));
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
    auto tls = certificate ? std::make_unique<TlsSession>(*certificate, socket.get()) : nullptr;
    Transport transport(std::move(socket), std::move(tls));
    {
        std::lock_guard lock(mutex_);
        if (stopping_ || connections_.size() >= limits_.connections) return;
        connection = next_id_++;
        peer = connections_.emplace(connection, std::make_unique<Peer>(std::move(transport), door, limits_)).first->second.get();
        set_sweep(true);
    }
    wait_again(connection, *peer);
}

Peer* Connections::take(uint64_t id) {
    std::lock_guard lock(mutex_);
    const auto found = connections_.find(id);
    if (found == connections_.end() || !found->second->waiting) return nullptr;
    found->second->waiting = false;
    return found->second.get();
}

// A request that is there already (a client that does not wait for answers) is served as soon as the peer
// can take bytes, which is at once.
void Connections::wait_again(uint64_t id, Peer& peer) {
    const int fd = peer.stream.socket();
    peer.stream.rest();
    std::lock_guard lock(mutex_);
    const bool has_bytes = peer.stream.has_input();
    const bool fresh_head = !peer.in_head && has_bytes;
    uint32_t events = static_cast<uint32_t>(peer.stream.receive_events());
    if (events == EPOLLIN) events |= EPOLLRDHUP;  // a peer that waits for room would be told of it again and again
    if (peer.detached && has_bytes) events |= EPOLLOUT;
    if (fresh_head) peer.in_head = true;
    if ((fresh_head || std::exchange(peer.is_fresh, false)) && !peer.lingers) {
        const bool is_due = peer.in_head || peer.stream.is_shaking_hands();
        peer.deadline = Clock::now() + (is_due ? limits_.head_time : limits_.idle_time);
    }
    const int operation = peer.armed ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
    peer.waiting = true;
    peer.armed = true;
    peer.detached = false;
    if (stopping_ || !arm(fd, id, events | EPOLLONESHOT, operation)) connections_.erase(id);
}

void Connections::forget(uint64_t id) {
    std::lock_guard lock(mutex_);
    const auto found = connections_.find(id);
    if (found == connections_.end()) return;
    if (found->second->detached) --detached_;
    connections_.erase(found);
    if (stopping_) changed_.notify_all();
}

void Connections::linger(Peer& peer) {
    std::lock_guard lock(mutex_);
    peer.lingers = true;
    peer.deadline = Clock::now() + linger_time;
}

void Connections::detach(Peer& peer) {
    std::lock_guard lock(mutex_);
    peer.detached = true;
    ++detached_;
}

void Connections::take_back(uint64_t id) {
    Peer* peer = nullptr;
    {
        std::lock_guard lock(mutex_);
        peer = connections_.at(id).get();
        --detached_;
        if (stopping_) changed_.notify_all();
    }
    wait_again(id, *peer);
}

void Connections::set_sweep(bool on) {
    if (sweeping_ == on) return;
    sweeping_ = on;
    itimerspec when{};
    if (on) when.it_interval.tv_sec = when.it_value.tv_sec = sweep_interval.count();
    ::timerfd_settime(sweep_timer_.get(), 0, &when, nullptr);
}

void Connections::sweep() {
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

bool Connections::stop() {
    std::lock_guard lock(mutex_);
    if (stopping_.exchange(true)) return false;
    listeners_.clear();
    std::erase_if(connections_, [](const auto& entry) { return entry.second->waiting; });
    const uint64_t one = 1;
    (void)!::write(stop_event_.get(), &one, sizeof one);  // level-triggered: wakes every waiting thread
    return true;
}

bool Connections::await_detached(Clock::time_point deadline) {
    std::unique_lock lock(mutex_);
    return changed_.wait_until(lock, deadline, [&] { return detached_ == 0; });
}

void Connections::await_detached() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return detached_ == 0; });
}

void Connections::shut_down_all() {
    std::lock_guard lock(mutex_);
    for (auto& [id, peer] : connections_) ::shutdown(peer->stream.socket(), SHUT_RDWR);
}

size_t Connections::count() const {
    std::lock_guard lock(mutex_);
    return connections_.size();
}

}  // namespace torpor::http
