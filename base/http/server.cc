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

// httplib's own server, for its parsing and writing only: it never listens.
class Protocol final : public httplib::Server {
  public:
    // It takes a missing listening socket for a shutdown and would cut streams; any number will do.
    Protocol() { svr_sock_ = 0; }

    bool serve_one(SocketStream& stream, bool& closed) {
        return process_request(stream, {}, 0, {}, 0, false, closed, nullptr);
    }
};

}  // namespace

const Connection* current_connection() {
    return current;
}

class Server::Impl {
  public:
    explicit Impl(Hooks hooks) : hooks_(std::move(hooks)) {
        epoll_ = Fd(::epoll_create1(EPOLL_CLOEXEC));
        stop_event_ = Fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
        sweep_timer_ = Fd(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
        arm(stop_event_.get(), stop_id, EPOLLIN, EPOLL_CTL_ADD);
        arm(sweep_timer_.get(), sweep_id, EPOLLIN | EPOLLET, EPOLL_CTL_ADD);
        set_up_protocol();
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

  private:
    struct Peer {
        Peer(Fd socket, Door which) : stream(std::move(socket)), door(which) {}
        SocketStream stream;
        Door door;
        bool waiting = false;        // in the epoll set, nobody's; guarded by mutex_
        bool armed = false;          // known to the epoll set
        bool in_head = false;        // part of a head has come
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

    void set_up_protocol();
    Result<void> start_thread();
    void run_thread();
    void leave();
    void join_ended();
    void dispatch(uint64_t id);
    void accept_from(uint64_t id);
    void serve(uint64_t id);
    bool serve_requests(Peer& peer);
    void wait_again(uint64_t id, Peer& peer);
    void forget(uint64_t id);
    void sweep();
    void set_sweep(bool on);

    Hooks hooks_;
    Protocol protocol_;
    Fd epoll_, stop_event_, sweep_timer_;
    std::atomic<bool> stopping_{false};
    std::atomic<size_t> threads_{0};
    std::atomic<size_t> idle_threads_{0};
    std::atomic<int> long_requests_{0};
    std::atomic<size_t> body_bytes_{0};

    mutable std::mutex mutex_;
    std::condition_variable changed_;
    std::vector<Listener> listeners_;                                // guarded by mutex_
    std::unordered_map<uint64_t, std::unique_ptr<Peer>> connections_;  // the map: guarded by mutex_
    uint64_t next_id_ = first_connection_id;                         // guarded by mutex_
    bool sweeping_ = false;                                          // guarded by mutex_
    std::vector<pthread_t> ended_;                                   // to be joined; guarded by mutex_
};

void Server::Impl::set_up_protocol() {
    protocol_.set_payload_max_length(request_body_bytes_max);
    protocol_.set_exception_handler([](const Request&, Response& response, std::exception_ptr) {
        response.status = 500;
        response.set_content("{\"error\":{\"kind\":\"internal\",\"message\":\"this is a mistake in torpord; its log "
                             "may tell more\"}}",
                             "application/json");
    });
    protocol_.set_pre_routing_handler([this](const Request& request, Response& response) {
        const bool has_body = request.has_header("Content-Length") || request.has_header("Transfer-Encoding");
        if (!has_body) current->stream.expect_no_body();
        return hooks_.admit(request, response) ? httplib::Server::HandlerResponse::Handled
                                               : httplib::Server::HandlerResponse::Unhandled;
    });
    const auto without_body = [this](const Request& request, Response& response) {
        hooks_.respond(request, {}, response);
    };
    const auto with_body = [this](const Request& request, Response& response, const httplib::ContentReader& read) {
        std::string body;
        size_t counted = 0;
        bool over = false;
        const bool whole = read([&](const char* bytes, size_t count) {
            counted += count;
            over = body_bytes_.fetch_add(count) + count > request_bytes_in_flight_max;
            if (!over) body.append(bytes, count);
            return !over;
        });
        if (whole) {
            hooks_.respond(request, std::move(body), response);
        } else if (over) {
            response.status = 503;
            response.set_header("Retry-After", "1");
            response.set_header("Connection", "close");
        } else if (response.status == -1) {
            response.status = 400;
        }
        body_bytes_.fetch_sub(counted);
    };
    // admit() has matched the path against the route table, which bounds its length.
    protocol_.Get(".*", without_body);
    protocol_.Post(".*", with_body);
    protocol_.Delete(".*", with_body);
}

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
    arm(listening, id, EPOLLIN | EPOLLONESHOT, EPOLL_CTL_MOD);
    if (!socket) return;
    if (door == Door::tcp) {
        const int on = 1;
        ::setsockopt(socket.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    }
    uint64_t connection = 0;
    {
        std::lock_guard lock(mutex_);
        if (stopping_ || connections_.size() >= connections_max) return;
        connection = next_id_++;
        connections_.emplace(connection, std::make_unique<Peer>(std::move(socket), door));
        set_sweep(true);
    }
    Peer* peer = nullptr;
    {
        std::lock_guard lock(mutex_);
        peer = connections_[connection].get();
    }
    wait_again(connection, *peer);
}

void Server::Impl::wait_again(uint64_t id, Peer& peer) {
    const int fd = peer.stream.socket();
    std::lock_guard lock(mutex_);
    const bool fresh_head = !peer.in_head && !peer.stream.buffered().empty();
    if (fresh_head) peer.in_head = true;
    if (fresh_head || !peer.in_head) {
        peer.deadline = Clock::now() + (peer.in_head ? request_head_time_max : connection_idle_max);
    }
    const int operation = peer.armed ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
    peer.waiting = true;
    peer.armed = true;
    if (stopping_ || !arm(fd, id, EPOLLIN | EPOLLRDHUP | EPOLLONESHOT, operation)) connections_.erase(id);
}

void Server::Impl::forget(uint64_t id) {
    std::lock_guard lock(mutex_);
    connections_.erase(id);
    if (stopping_) changed_.notify_all();
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
    if (serve_requests(*peer) && !stopping_) {
        wait_again(id, *peer);
    } else {
        forget(id);
    }
}

// Answers all whole requests that have come. False when the connection is to be closed.
bool Server::Impl::serve_requests(Peer& peer) {
    for (;;) {
        if (!peer.stream.fill() && peer.stream.buffered().empty()) return false;
        const std::string_view bytes = peer.stream.buffered();
        if (bytes.find("\r\n\r\n") == std::string_view::npos) {
            if (bytes.size() < request_head_bytes_max) {
                pollfd wait{peer.stream.socket(), POLLRDHUP, 0};
                return !(::poll(&wait, 1, 0) > 0 && !bytes.empty());  // half a request and no more to come
            }
            constexpr std::string_view answer =
                "HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            (void)peer.stream.write(answer.data(), answer.size());
            return false;
        }
        const Connection connection{peer.door, peer.stream};
        current = &connection;
        peer.stream.begin_response();
        bool closed = false;
        const bool answered = protocol_.serve_one(peer.stream, closed);
        current = nullptr;
        peer.in_head = false;
        if (!peer.stream.flush() || !answered || closed || stopping_) return false;
        if (peer.stream.buffered().empty()) {
            if (idle_threads_ == 0) return true;
            pollfd wait{peer.stream.socket(), POLLIN, 0};
            if (::poll(&wait, 1, static_cast<int>(connection_linger.count())) <= 0) return true;
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
    if (connections_.empty()) set_sweep(false);
}

void Server::Impl::stop(std::chrono::milliseconds deadline) {
    std::unique_lock lock(mutex_);
    if (stopping_.exchange(true)) return;
    listeners_.clear();
    std::erase_if(connections_, [](const auto& entry) { return entry.second->waiting; });
    const uint64_t one = 1;
    (void)!::write(stop_event_.get(), &one, sizeof one);  // level-triggered: wakes every waiting thread
    if (!changed_.wait_for(lock, deadline, [&] { return threads_ == 0; })) {
        for (auto& [id, peer] : connections_) ::shutdown(peer->stream.socket(), SHUT_RDWR);
    }
    changed_.wait(lock, [&] { return threads_ == 0; });
    lock.unlock();
    join_ended();
}

Server::Server(Hooks hooks) : impl_(std::make_unique<Impl>(std::move(hooks))) {}

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

}  // namespace torpor::http
