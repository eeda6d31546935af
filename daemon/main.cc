// torpord: reads the configuration, makes the parts in order, serves until told to stop.
#include "base/fd.hh"
#include "base/log.hh"
#include "base/open_files.hh"
#include "base/programs.hh"
#include "base/text.hh"
#include "daemon/agent/sessions.hh"
#include "daemon/agent/turns.hh"
#include "daemon/api/event_streams.hh"
#include "daemon/catalogue.hh"
#include "daemon/config.hh"
#include "daemon/daemon.hh"
#include "daemon/llm/providers.hh"
#include "daemon/dispatch.hh"
#include "daemon/gateway/gateway.hh"
#include "daemon/service.hh"
#include "daemon/sockets.hh"
#include "gpu/criu.hh"

#include <malloc.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string_view>

namespace torpor {
namespace {

struct Arguments {
    int ready_fd = -1;
    bool log_to_file = false;
};

constexpr std::string_view usage =
    "usage: torpord [--ready-fd N]\n"
    "\n"
    "The daemon of Torpor, in the foreground; `torpor daemon start` starts it in the background.\n"
    "  --ready-fd N   write \"ready\" (or what went wrong) to this descriptor, and log to a file\n"
    "  --version      print the version\n"
    "Everything lies under TORPOR_DIR, or else in XDG's folders. SIGHUP reloads, SIGTERM stops.\n";

Result<Arguments> parse(int argc, char** argv) {
    Arguments arguments;
    for (int i = 1; i < argc; ++i) {
        const std::string_view argument = argv[i];
        if (argument == "--ready-fd" && i + 1 < argc) {
            arguments.ready_fd = std::atoi(argv[++i]);
            arguments.log_to_file = true;
        } else {
            return fail(Kind::invalid, "'{}' is not an option of torpord", argument);
        }
    }
    return arguments;
}

// Tells whoever started us, once.
void tell_starter(Fd& starter, std::string_view text) {
    if (!starter) return;
    (void)write_all(starter.get(), text, 1000);
    starter.reset();
}

Result<void> make_folders(const Folders& folders) {
    for (const auto& folder : {folders.config, folders.state, folders.runtime, folders.models(), folders.logs(),
                               folders.workers()}) {
        if (auto made = make_private_folder(folder); !made) return made;
    }
    return {};
}

// What would be kept in a folder that is not ours alone is not kept.
void check_caches(const Folders& folders, gpu::CriuTool& criu, Config& config) {
    if (auto folder = gpu::check_cache_folder(folders.cache, folders.snapshots()); !folder) {
        criu.why_not = folder.error().text();
        criu.is_folder_ours = false;
    }
    if (auto folder = gpu::check_cache_folder(folders.cache, folders.prompts()); !folder) {
        log::warning("the state of prompts is not kept: {}", folder.error().text());
        config.prompt_state_bytes = 0;
    }
}

Result<void> run(const Arguments& arguments, Fd& starter) {
    auto folders = Folders::from_environment();
    if (!folders) return Failure(folders.error());
    if (auto made = make_folders(*folders); !made) return made;
    log::open(arguments.log_to_file ? folders->logs() / "torpord.log" : "", log::Level::info);

    auto store = store::Store::open(folders->state);  // holds the lock: we are the only one from here on
    if (!store) return Failure(store.error());
    auto keys = store::Keys::open(**store);
    if (!keys) return Failure(keys.error());
    std::string config_error;
    auto config = load_config(*folders);
    if (!config) {
        // A daemon that does not start is worse than one without its models: say it and go on.
        config_error = config.error().text() + " (the defaults are in use, and no model is served)";
        config = Config();
    } else if (!config->mistakes.empty()) {
        config_error = fmt::format("{} (the other models are served)", fmt::join(config->mistakes, "; "));
    }
    if (!config_error.empty()) log::error("{}", config_error);
    log::set_level(config->log_level);  // not opened again: the check of the database may be writing to it
    for (const std::string& note : config->notes) log::warning("{}", note);

    EventLoop loop;
    StoreCatalogue catalogue(**store);
    auto launcher = find_beside("torpor-launch", "gpu/launch");
    if (!launcher) return Failure(launcher.error());
    auto hook = find_beside("torpor-criu-hook", "gpu/criu_hook");
    if (!hook) return Failure(hook.error());
    gpu::CriuTool criu = gpu::find_criu(folders->data, folders->state / "criu-check");
    criu.hook = *hook;
    check_caches(*folders, criu, *config);
    gpu::Pool pool(loop, {*folders, *launcher, std::move(criu), &catalogue,
                         config->requests_per_model, config->queue, config->prompt_state_bytes});
    if (!pool.criu().is_offered()) log::info("idle workers are stopped, not frozen: {}", pool.criu().why_not);
    pool.set_programs(config->programs);
    pool.set_memory(config->memory.value_or(gpu::automatic_memory_budget()));
    pool.set_disk_budget(config->disk_budget);
    pool.watch_pressure();
    pool.set_models(config->models);
    pool.adopt_workers((*store)->was_unclean());

    gateway::Gateway gateway(pool, config->gateway_limits, config->http_limits.client_stall,
                             folders->request_log());
    if (auto started = gateway.start(); !started) return started;
    Daemon daemon{.folders = *folders, .loop = loop, .store = **store, .keys = **keys, .pool = pool, .gateway = gateway,
                  .http_limits = config->http_limits, .tcp_state = {}, .hosts = {}, .failed_keys = {},
                  .config_mutex = {}, .config = std::move(*config), .config_error = config_error, .certificate = {},
                  .begin_stop = {}};
    daemon.started_at_ms = store::now_ms();
    agent::Sessions sessions(**store);
    llm::AllProviders providers(*folders, pool);
    providers.set(daemon.config.providers, daemon.config.agent_model);
    agent::Turns turns({**store, sessions, providers, *folders});
    api::EventStreams streams(**store);
    daemon.sessions = &sessions;
    daemon.providers = &providers;
    daemon.turns = &turns;
    daemon.streams = &streams;
    http::Server server(make_hooks(daemon), daemon.http_limits);
    daemon.server = &server;
    Service service(daemon, server);
    if (auto opened = service.open(); !opened) return opened;
    if (auto started = server.start(); !started) return started;
    turns.resume_all();
    if (const std::string lack = daemon.lack_of_open_files(); !lack.empty()) log::warning("{}", lack);
    log::info("torpord {} (pid {}) serves {} and {}", TORPOR_VERSION, ::getpid(), folders->socket().string(), daemon.tcp_state);
    notify_service_manager("READY=1");
    tell_starter(starter, "ready\n");
    loop.run();
    streams.stop();
    server.stop(std::chrono::milliseconds(0));
    gateway.stop();
    service.close();
    log::info("torpord has ended");
    log::flush();
    return {};
}

}  // namespace
}  // namespace torpor

int main(int argc, char** argv) {
    using namespace torpor;
    if (argc == 2 && std::strcmp(argv[1], "--version") == 0) return std::puts("torpord " TORPOR_VERSION) < 0;
    if (argc == 2 && std::strcmp(argv[1], "--help") == 0) return std::fputs(usage.data(), stdout) < 0;
    auto arguments = parse(argc, argv);
    if (!arguments) {
        std::fprintf(stderr, "torpord: %s\n\n%s", arguments.error().message.c_str(), usage.data());
        return 2;
    }
    ::umask(0077);
    raise_open_files();
    ::prctl(PR_SET_CHILD_SUBREAPER, 1);  // thawed workers and their children come back to us
    mallopt(M_ARENA_MAX, 2);             // many short-lived threads would leave an arena each
    Fd starter(arguments->ready_fd);
    auto done = run(*arguments, starter);
    if (done) return 0;
    log::error("{}", done.error().text());
    if (!arguments->log_to_file || ::isatty(STDERR_FILENO) != 0) {
        std::fprintf(stderr, "torpord: %s\n", done.error().text().c_str());
    }
    tell_starter(starter, done.error().text());
    return row_of(done.error().kind).exit_status;
}
