#include "base/event_loop.hh"

#include <utility>

namespace torpor {

EventLoop::EventLoop() {
    uv_loop_init(&loop_);
    wake_.data = this;
    uv_async_init(&loop_, &wake_, [](uv_async_t* async) { static_cast<EventLoop*>(async->data)->drain(); });
}

EventLoop::~EventLoop() {
    if (!closed_) {
        closed_ = true;
        uv_close(reinterpret_cast<uv_handle_t*>(&wake_), nullptr);
    }
    uv_run(&loop_, UV_RUN_DEFAULT);
    uv_loop_close(&loop_);
}

bool EventLoop::is_loop_thread() const {
    const std::thread::id owner = thread_.load();
    return owner == std::thread::id{} || owner == std::this_thread::get_id();
}

void EventLoop::run() {
    thread_ = std::this_thread::get_id();
    uv_run(&loop_, UV_RUN_DEFAULT);
    drain();  // what came between the last wake-up and stop()
    thread_ = std::thread::id{};
}

void EventLoop::stop() {
    std::lock_guard lock(mutex_);
    stopping_ = true;
    if (!closed_) uv_async_send(&wake_);
}

bool EventLoop::post(std::function<void()> work) {
    std::lock_guard lock(mutex_);
    if (closed_) return false;  // never send after uv_close
    queue_.push_back(std::move(work));
    if (queue_.size() == 1) uv_async_send(&wake_);
    return true;
}

void EventLoop::drain() {
    for (;;) {
        std::vector<std::function<void()>> work;
        {
            std::lock_guard lock(mutex_);
            work.swap(queue_);
            if (work.empty()) {
                if (stopping_ && !closed_) {
                    closed_ = true;
                    uv_close(reinterpret_cast<uv_handle_t*>(&wake_), nullptr);
                    uv_stop(&loop_);
                }
                return;
            }
        }
        for (auto& each : work) each();
    }
}

namespace {

struct Aside {
    uv_work_t request{};
    std::function<void()> work, done;
};

}  // namespace

void EventLoop::run_aside(std::function<void()> work, std::function<void()> done) {
    auto aside = std::make_unique<Aside>();
    aside->work = std::move(work);
    aside->done = std::move(done);
    aside->request.data = aside.get();
    uv_queue_work(
        &loop_, &aside.release()->request, [](uv_work_t* request) { static_cast<Aside*>(request->data)->work(); },
        [](uv_work_t* request, int) {
            std::unique_ptr<Aside> aside(static_cast<Aside*>(request->data));
            aside->done();
        });
}

struct Timer::Handle {
    uv_timer_t timer{};
    std::function<void()> action;
};

Timer::Timer(EventLoop& loop) : handle_(std::make_unique<Handle>().release()) {
    handle_->timer.data = handle_;
    uv_timer_init(loop.handle(), &handle_->timer);
}

Timer::~Timer() {
    uv_close(reinterpret_cast<uv_handle_t*>(&handle_->timer), [](uv_handle_t* closed) {
        std::unique_ptr<Handle> owned(static_cast<Handle*>(closed->data));
    });
}

void Timer::start(std::chrono::milliseconds delay, std::function<void()> action) {
    handle_->action = std::move(action);
    uv_update_time(handle_->timer.loop);
    uv_timer_start(
        &handle_->timer,
        [](uv_timer_t* timer) {
            // Moved out first: the action may start or destroy this very timer.
            auto action = std::move(static_cast<Handle*>(timer->data)->action);
            if (action) action();
        },
        static_cast<uint64_t>(delay.count()), 0);
}

void Timer::cancel() {
    uv_timer_stop(&handle_->timer);
    handle_->action = nullptr;
}

bool Timer::is_active() const {
    return uv_is_active(reinterpret_cast<const uv_handle_t*>(&handle_->timer)) != 0;
}

struct Watch::Handle {
    uv_poll_t poll{};
    std::function<void()> ready;
    bool closing = false;
};

Watch::Watch(EventLoop& loop, int fd, int events, std::function<void()> ready)
    : handle_(std::make_unique<Handle>().release()) {
    handle_->ready = std::move(ready);
    handle_->poll.data = handle_;
    uv_poll_init(loop.handle(), &handle_->poll, fd);
    uv_poll_start(&handle_->poll, events, [](uv_poll_t* poll, int, int) {
        auto* handle = static_cast<Handle*>(poll->data);
        if (handle->closing) return;
        const auto ready = handle->ready;  // a copy: the call may destroy the watch
        ready();
    });
}

Watch::~Watch() {
    handle_->closing = true;
    uv_poll_stop(&handle_->poll);
    uv_close(reinterpret_cast<uv_handle_t*>(&handle_->poll), [](uv_handle_t* closed) {
        std::unique_ptr<Handle> owned(static_cast<Handle*>(closed->data));
    });
}

}  // namespace torpor
