#include "daemon/service.hh"

#include "base/fd.hh"
#include "base/log.hh"
#include "base/text.hh"
#include "daemon/sockets.hh"

#include <signal.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <future>
#include <utility>

namespace torpor {

namespace {

constexpr std::chrono::seconds stop_time_max{20};  // running requests may finish within this
constexpr std::chrono::seconds socket_retry{1};    // while there is no place for the socket

}  // namespace

Service::Service(Daemon& daemon, http::Server& server) : daemon_(daemon), server_(server) {
    daemon_.begin_stop = [this] { daemon_.loop.post([this] { begin_stop(); }); };
}

Service::~Service() {
    if (stopper_.joinable()) stopper_.join();
}

Result<void> Service::open() {
    const Folders& folders = daemon_.folders;
    Fd socket = socket_from_service_manager();
    socket_is_ours_ = !socket;
    if (!socket) {
        auto listening = listen_on_socket(folders.socket());
        if (!listening) return Failure(listening.error());
        socket = std::move(*listening);
    }
    if (auto added = server_.add_listener(std::move(socket), http::Door::socket); !added) return added;
    if (daemon_.config.tcp_host.empty()) {
        daemon_.tcp_state = "no TCP port (switched off in config.toml)";
    } else if (auto tcp = listen_on_tcp(daemon_.config.tcp_port); !tcp) {
        daemon_.tcp_state = tcp.error().text() + "; torpor.sock works, choose another port in config.toml: [http] tcp";
        log::warning("{}", daemon_.tcp_state);
    } else {
        daemon_.tcp_state = fmt::format("{}:{}", daemon_.config.tcp_host, daemon_.config.tcp_port);
        if (auto added = server_.add_listener(std::move(*tcp), http::Door::tcp); !added) return added;
    }
    if (auto written = write_file_atomically(folders.runtime / "torpor.pid", fmt::format("{}\n", ::getpid()), 0600); !written) {
        return written;
    }
    watch_signals();
    if (socket_is_ours_) watch_socket_file();
    plan_watchdog();
    return {};
}

void Service::close() {
    if (socket_is_ours_) ::unlink(daemon_.folders.socket().c_str());
    ::unlink((daemon_.folders.runtime / "torpor.pid").c_str());
}

void Service::watch_signals() {
    ::signal(SIGPIPE, SIG_IGN);
    const std::array numbers{SIGTERM, SIGINT, SIGHUP};
    for (size_t i = 0; i < numbers.size(); ++i) {
        signals_[i].data = this;
        uv_signal_init(daemon_.loop.handle(), &signals_[i]);
        uv_signal_start(
            &signals_[i], [](uv_signal_t* signal, int number) { static_cast<Service*>(signal->data)->on_signal(number); },
            numbers[i]);
    }
}

void Service::on_signal(int number) {
    if (number != SIGHUP) return begin_stop();
    // Reading files is not for the loop's thread, nor is reload(), which waits for it.
    daemon_.loop.run_aside(
        [this] {
            if (auto models = daemon_.reload()) log::info("reloaded: {} models", *models);
        },
        [] {});
}

// First: no new work, what runs may finish. A second request ends at once.
void Service::begin_stop() {
    if (++stop_requests_ > 1) {
        log::warning("ending at once");
        log::flush();
        close();
        std::_Exit(1);
    }
    log::info("stopping; requests under way may finish within {}", format_duration(stop_time_max));
    notify_service_manager("STOPPING=1");
    daemon_.is_stopping = true;
    socket_watch_.reset();
    socket_retry_.reset();
    stopper_ = std::thread([this] {
        server_.stop(stop_time_max);
        daemon_.loop.post([this] { daemon_.pool.shut_down([this] { finish_stop(); }); });
    });
}

void Service::finish_stop() {
    for (uv_signal_t& signal : signals_) {
        if (signal.data != nullptr) uv_close(reinterpret_cast<uv_handle_t*>(&signal), nullptr);
    }
    watchdog_.reset();
    daemon_.loop.stop();
}

// The folder of the socket may be emptied under us, or go altogether (the last logout, a cleaner): bind again.
void Service::watch_socket_file() {
    socket_watch_.reset();
    inotify_ = Fd(::inotify_init1(IN_CLOEXEC | IN_NONBLOCK));
    constexpr uint32_t losses = IN_DELETE | IN_MOVED_FROM | IN_DELETE_SELF | IN_MOVE_SELF;
    if (!inotify_ || ::inotify_add_watch(inotify_.get(), daemon_.folders.runtime.c_str(), losses) < 0) return;
    socket_watch_ = std::make_unique<Watch>(daemon_.loop, inotify_.get(), UV_READABLE, [this] {
        std::array<char, 4096> events{};
        while (::read(inotify_.get(), events.data(), events.size()) > 0) {
        }
        look_after_socket();
    });
}

void Service::look_after_socket() {
    if (daemon_.is_stopping || ::access(daemon_.folders.socket().c_str(), F_OK) == 0) return;
    if (auto bound = bind_socket_again(); !bound) {
        if (!std::exchange(socket_loss_was_told_, true)) {
            log::error("torpor.sock has vanished and cannot be made again yet: {}", bound.error().text());
        }
        if (!socket_retry_) socket_retry_ = std::make_unique<Timer>(daemon_.loop);
        socket_retry_->start(socket_retry, [this] { look_after_socket(); });
        return;
    }
    socket_loss_was_told_ = false;
    log::warning("torpor.sock had vanished; it is there again");
}

Result<void> Service::bind_socket_again() {
    const Folders& folders = daemon_.folders;
    for (const auto& folder : {folders.runtime, folders.workers()}) {
        if (auto made = make_private_folder(folder); !made) return made;
    }
    auto listening = listen_on_socket(folders.socket());
    if (!listening) return Failure(listening.error());
    if (auto added = server_.add_listener(std::move(*listening), http::Door::socket); !added) return added;
    watch_socket_file();  // the folder may be another one by now
    return write_file_atomically(folders.runtime / "torpor.pid", fmt::format("{}\n", ::getpid()), 0600);
}

// systemd's WatchdogSec: pinged from the loop, so that a wedged one is found out.
void Service::plan_watchdog() {
    const char* usec = std::getenv("WATCHDOG_USEC");
    if (usec == nullptr) return;
    const auto interval = std::chrono::milliseconds(std::max(1000LL, std::atoll(usec) / 2000));
    if (!watchdog_) watchdog_ = std::make_unique<Timer>(daemon_.loop);
    watchdog_->start(interval, [this] {
        notify_service_manager("WATCHDOG=1");
        plan_watchdog();
    });
}

Result<size_t> Daemon::reload() {
    // Unlike at the start there is something good to keep: with any mistake all stays as it was.
    auto fresh = load_config(folders);
    if (fresh && !fresh->mistakes.empty()) fresh = fail(Kind::invalid, "{}", fmt::join(fresh->mistakes, "; "));
    if (!fresh) {
        log::error("the configuration was not taken: {}", fresh.error().text());
        std::lock_guard lock(config_mutex);
        config_error = fresh.error().text() + " (nothing was taken; what was read before is in use)";
        return Failure(fresh.error());
    }
    for (const std::string& note : fresh->notes) log::warning("{}", note);
    const size_t count = fresh->models.size();
    auto models = std::make_shared<std::vector<gpu::Model>>(fresh->models);
    const gpu::EnginePrograms fresh_programs = fresh->programs;
    log::set_level(fresh->log_level);
    {
        std::lock_guard lock(config_mutex);
        if (fresh->tcp_host != config.tcp_host || fresh->tcp_port != config.tcp_port) {
            log::warning("another [http] tcp takes effect when torpord starts the next time");
        }
        config = std::move(*fresh);
        config_error.clear();
    }
    auto taken = std::make_shared<std::promise<void>>();
    auto future = taken->get_future();
    const bool posted = loop.post([this, models, taken, programs = fresh_programs] {
        pool.set_programs(programs);
        pool.set_models(*models);
        taken->set_value();
    });
    if (!posted) return fail(Kind::unavailable, "torpord is shutting down");
    future.wait();
    return count;
}

}  // namespace torpor
