#include "daemon/service.hh"

#include "base/fd.hh"
#include "base/log.hh"
#include "base/open_files.hh"
#include "base/text.hh"
#include "daemon/agent/turns.hh"
#include "daemon/api/event_streams.hh"
#include "daemon/llm/providers.hh"
#include "daemon/certificate.hh"
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
    if (auto opened = open_tcp(); !opened) {
        daemon_.tcp_is_well = false;
        daemon_.tcp_state = opened.error().text() + "; torpor.sock works; mend [http] in config.toml, then torpor daemon restart";
        log::warning("{}", daemon_.tcp_state);
    }
    if (auto written = write_file_atomically(folders.runtime / "torpor.pid", fmt::format("{}\n", ::getpid()), 0600); !written) {
        return written;
    }
    watch_signals();
    if (socket_is_ours_) watch_socket_file();
    plan_watchdog();
    return {};
}

// Before the server has threads.
Result<void> Service::open_tcp() {
    const HttpConfig& config = daemon_.config.http;
    if (!config.tcp) {
        daemon_.tcp_state = "no TCP port (switched off in config.toml)";
        return {};
    }
    auto certificate = load_certificate(daemon_.folders, config);
    if (!certificate) return Failure(certificate.error());
    auto listening = listen_on_tcp(*config.tcp);
    if (!listening) return Failure(listening.error());
    const bool is_readable = !*certificate && !config.tcp->is_loopback();
    daemon_.tcp_state = config.tcp->text() + (*certificate ? " (TLS)" : is_readable ? " (plain HTTP: keys and prompts travel readable)" : "");
    daemon_.hosts = {config.hosts, config.tcp->is_any()};
    if (!config.tcp->is_any()) daemon_.hosts.names.push_back(config.tcp->host);
    daemon_.certificate = *certificate;
    return server_.add_listener(std::move(*listening), http::Door::tcp, std::move(*certificate));
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
        daemon_.turns->stop();  // the next daemon goes on with them
        daemon_.streams->stop();
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

namespace {

struct Fresh {
    Config config;
    std::shared_ptr<const http::Certificate> certificate;
};

// Unlike at the start there is something good to keep: with any mistake all stays as it was.
Result<Fresh> read_again(const Folders& folders) {
    auto config = load_config(folders);
    if (!config) return Failure(config.error());
    if (!config->mistakes.empty()) return fail(Kind::invalid, "{}", fmt::join(config->mistakes, "; "));
    auto certificate = load_certificate(folders, config->http);
    if (!certificate) return Failure(certificate.error());
    return Fresh{std::move(*config), std::move(*certificate)};
}

// Whether all of [http] is as before, but for other files with another certificate.
bool is_same(HttpConfig fresh, const HttpConfig& before) {
    if (!fresh.certificate.empty() && !before.certificate.empty()) {
        fresh.certificate = before.certificate;
        fresh.key = before.key;
    }
    return fresh == before;
}

}  // namespace

Result<size_t> Daemon::reload() {
    auto read = read_again(folders);
    if (!read) {
        log::error("the configuration was not taken: {}", read.error().text());
        std::lock_guard lock(config_mutex);
        config_error = read.error().text() + " (nothing was taken; what was read before is in use)";
        return Failure(read.error());
    }
    Config* fresh = &read->config;
    for (const std::string& note : fresh->notes) log::warning("{}", note);
    const size_t count = fresh->models.size();
    log::set_level(fresh->log_level);
    {
        std::lock_guard lock(config_mutex);
        if (!is_same(fresh->http, config.http)) {
            log::warning("another [http] takes effect when torpord starts the next time (but for what is in the certificate's files)");
        }
        if (certificate && read->certificate) {
            certificate = read->certificate;
            server->set_certificate(read->certificate);
        }
        config = std::move(*fresh);
        config_error.clear();
        providers->set(config.providers, config.agent_model);
    }
    if (auto given = give_models(); !given) return Failure(given.error());
    return count;
}

Result<void> Daemon::give_models() {
    auto taken = std::make_shared<std::promise<void>>();
    auto future = taken->get_future();
    const bool posted = loop.post([this, taken] {
        std::vector<gpu::Model> models;
        gpu::EnginePrograms programs;
        std::optional<uint64_t> memory, disk_budget;
        {
            std::lock_guard lock(config_mutex);
            models = config.models;
            models.insert(models.end(), trials.begin(), trials.end());
            programs = config.programs;
            memory = config.memory;
            disk_budget = config.disk_budget;
        }
        pool.set_programs(std::move(programs));
        pool.set_memory(memory.value_or(gpu::automatic_memory_budget()));
        pool.set_disk_budget(disk_budget);
        pool.set_models(models);
        taken->set_value();
    });
    if (!posted) return fail(Kind::unavailable, "torpord is shutting down");
    future.wait();
    return {};
}

std::string Daemon::lack_of_open_files() const {
    constexpr uint64_t others = 128;  // listeners, the database, logs, workers
    const uint64_t needed = 2 * http_limits.connections + others;  // one to the client, one to the worker
    const uint64_t there = open_files_max();
    if (there >= needed) return {};
    return fmt::format("{} descriptors may be open, but [limits] connections = {} may need {}: raise the hard limit (ulimit -Hn, "
                       "LimitNOFILE in the service's unit), or set fewer connections", there, http_limits.connections, needed);
}

}  // namespace torpor
