#include "daemon/gateway/relay.hh"

#include "daemon/gateway/exchange.hh"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>

namespace torpor::gateway {

Relay::Relay(std::function<void(bool)> on_tick)
    : on_tick_(std::move(on_tick)), epoll_(::epoll_create1(EPOLL_CLOEXEC)), wake_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}

Relay::~Relay() {
    stop();
}

Result<void> Relay::start() {
    if (!epoll_ || !wake_) return fail_errno(Kind::internal, "cannot make an epoll set");
    watch(EPOLL_CTL_ADD, wake_.get(), 0, Side::client, EPOLLIN);
    thread_ = std::thread([this] { run(); });
    return {};
}

void Relay::stop() {
    if (!thread_.joinable()) return;
    stopping_ = true;
    wake_up();
    thread_.join();
    std::unordered_map<uint64_t, std::shared_ptr<Exchange>> dropped;
    std::lock_guard lock(mutex_);
    dropped.swap(exchanges_);
    posts_.clear();
}

void Relay::adopt(std::shared_ptr<Exchange> exchange) {
    // Under the lock: whatever comes in on the descriptors finds the exchange only once all of this is done.
    std::lock_guard lock(mutex_);
    idle_ticks_ = 0;  // it may be over before the next tick, which writes its line of the log
    Exchange& adopted = *exchanges_.emplace(exchange->id(), exchange).first->second;
    adopted.start_watching();
    if (!adopted.is_under_way()) posts_.push_back({adopted.id(), [](Exchange& waiting) { waiting.go_on(); }});
    if (std::exchange(sleeps_, false) || !adopted.is_under_way()) wake_up();
}

void Relay::wake_up() {
    const uint64_t one = 1;
    (void)!::write(wake_.get(), &one, sizeof one);
}

void Relay::post(uint64_t id, std::function<void(Exchange&)> work) {
    {
        std::lock_guard lock(mutex_);
        posts_.push_back({id, std::move(work)});
    }
    wake_up();
}

size_t Relay::count() const {
    std::lock_guard lock(mutex_);
    return exchanges_.size();
}

void Relay::watch(int operation, int fd, uint64_t id, Side side, uint32_t events) {
    epoll_event event{};
    event.events = events;
    event.data.u64 = id << 1 | static_cast<uint64_t>(side);
    ::epoll_ctl(epoll_.get(), operation, fd, &event);
}

std::shared_ptr<Exchange> Relay::find(uint64_t id) {
    std::lock_guard lock(mutex_);
    const auto found = exchanges_.find(id);
    return found == exchanges_.end() ? nullptr : found->second;
}

void Relay::remove(uint64_t id) {
    std::lock_guard lock(mutex_);
    exchanges_.erase(id);
}

void Relay::take_posts() {
    uint64_t ignored = 0;
    (void)!::read(wake_.get(), &ignored, sizeof ignored);
    std::vector<Post> posts;
    {
        std::lock_guard lock(mutex_);
        posts.swap(posts_);
    }
    for (Post& post : posts) {
        if (const auto exchange = find(post.id)) post.work(*exchange);
    }
}

void Relay::tick() {
    std::vector<std::shared_ptr<Exchange>> all;
    {
        std::lock_guard lock(mutex_);
        all.reserve(exchanges_.size());
        for (const auto& [id, exchange] : exchanges_) all.push_back(exchange);
        idle_ticks_ = all.empty() ? idle_ticks_ + 1 : 0;
    }
    const auto now = std::chrono::steady_clock::now();
    for (const auto& exchange : all) exchange->on_tick(now);
    on_tick_(all.empty());
}

// With nothing to carry for a while the thread waits without a tick, until adopt() wakes it.
bool Relay::may_sleep() {
    constexpr int idle_ticks_max = 2;
    std::lock_guard lock(mutex_);
    sleeps_ = exchanges_.empty() && posts_.empty() && idle_ticks_ >= idle_ticks_max;
    return sleeps_;
}

void Relay::run() {
    std::array<epoll_event, events_at_once> events;
    auto next_tick = std::chrono::steady_clock::now();
    while (!stopping_) {
        const auto wait = soon_.empty() ? relay_tick : connect_again;
        const int wait_ms = may_sleep() ? -1 : static_cast<int>(wait.count());
        const int count = ::epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), wait_ms);
        for (int i = 0; i < count; ++i) {
            const uint64_t id = events[i].data.u64 >> 1;
            if (id == 0) {
                take_posts();
            } else if (const auto exchange = find(id)) {
                const bool is_worker = (events[i].data.u64 & 1) == static_cast<uint64_t>(Side::worker);
                is_worker ? exchange->on_worker(events[i].events) : exchange->on_client(events[i].events);
            }
        }
        for (const uint64_t id : std::exchange(soon_, {})) {
            if (const auto exchange = find(id)) exchange->connect_again();
        }
        if (const auto now = std::chrono::steady_clock::now(); now >= next_tick) {
            tick();
            next_tick = now + relay_tick;
        }
    }
}

}  // namespace torpor::gateway
