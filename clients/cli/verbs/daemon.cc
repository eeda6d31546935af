// torpor daemon start|stop|restart|status|enable|disable
#include "base/fd.hh"
#include "base/programs.hh"
#include "clients/cli/autostart.hh"
#include "clients/cli/output.hh"
#include "clients/cli/verbs.hh"

#include <poll.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>

namespace torpor::cli {

namespace {

constexpr int stop_time_max_ms = 40'000;  // torpord gives requests 20 s, then ends its workers

Result<Answer> ask_running(Context& context) {
    context.client.set_autostart(false);
    return context.client.get("/api/version");
}

Result<void> start(Context& context) {
    const bool was_running = is_running(context.client.folders());
    if (auto running = ensure_running(context.client.folders()); !running) return running;
    print_line(fmt::format("torpord {} on {}", was_running ? "runs already" : "is started",
                           context.client.folders().socket().string()));
    return {};
}

Result<void> stop(Context& context) {
    auto answer = ask_running(context);
    if (!answer) return Failure(answer.error());
    const auto pid = static_cast<pid_t>(Answer::number(answer->root(), "pid"));
    Fd process(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
    if (!process) return fail_errno(Kind::internal, fmt::format("torpord (pid {}) cannot be watched", pid));
    auto stopping = context.client.post("/api/shutdown");
    if (!stopping) return Failure(stopping.error());
    Progress progress("torpord lets requests under way finish …");
    pollfd wait{process.get(), POLLIN, 0};
    if (::poll(&wait, 1, stop_time_max_ms) <= 0) {
        return fail(Kind::timeout, "torpord (pid {}) has not ended within {} s; kill -TERM {} ends it at once", pid,
                    stop_time_max_ms / 1000, pid);
    }
    progress.end();
    print_line("torpord has stopped");
    return {};
}

Result<void> restart(Context& context) {
    if (is_running(context.client.folders())) {
        if (auto stopped = stop(context); !stopped) return stopped;
    }
    return start(context);
}

Result<void> status(Context& context) {
    auto answer = ask_running(context);
    if (!answer) return Failure(answer.error());
    if (context.json) {
        print_line(simdjson::minify(answer->root()));
        return {};
    }
    print_line(fmt::format("torpord {} runs (pid {}), started {}, on {}", Answer::text(answer->root(), "version"),
                           Answer::number(answer->root(), "pid"), ago(Answer::number(answer->root(), "started_at_ms")),
                           context.client.folders().socket().string()));
    return {};
}

// Runs systemctl with our terminal; its own words are the cause.
Result<void> systemctl(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {"systemctl", "--user"});
    std::vector<char*> argv;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    const pid_t child = ::fork();
    if (child == 0) {
        ::execvp(argv[0], argv.data());
        ::_exit(127);
    }
    int ended = 0;
    if (child < 0 || ::waitpid(child, &ended, 0) != child || ended != 0) {
        return fail(Kind::unavailable, "{} failed: is there a systemd user manager? Without one, torpord needs no unit: any "
                                       "torpor verb starts it",
                    fmt::join(arguments, " "));
    }
    return {};
}

Result<void> check_instance() {
    if (std::getenv("TORPOR_DIR") == nullptr) return {};
    return fail(Kind::invalid, "the systemd unit is for the instance in your home; unset TORPOR_DIR first");
}

Result<void> enable(Context& context) {
    if (auto checked = check_instance(); !checked) return checked;
    auto service = find_beside("torpor.service", "packaging");
    auto socket = find_beside("torpor.socket", "packaging");
    if (!service || !socket) return Failure((service ? socket : service).error());
    if (is_running(context.client.folders())) {
        if (auto stopped = stop(context); !stopped) return stopped;  // systemd is to own the socket
    }
    // The socket first: systemd 252 looks for what the service's Also= names among the units that it knows, or was just told.
    if (auto enabled = systemctl({"enable", "--now", *socket, *service}); !enabled) return enabled;
    print_line("torpord starts when it is needed, and with your login");
    print_line("At your last logout systemd ends it; to keep it running: loginctl enable-linger");
    return {};
}

Result<void> disable() {
    if (auto checked = check_instance(); !checked) return checked;
    // Not `disable --now`: that takes the units away first, and systemd stops what it has forgotten how to stop.
    for (const char* what : {"stop", "disable"}) {
        if (auto done = systemctl({what, "torpor.service", "torpor.socket"}); !done) return done;
    }
    print_line("torpord has stopped, and systemd starts it no more; any torpor verb does");
    return {};
}

}  // namespace

void add_daemon_verbs(CLI::App& app, Context& context) {
    CLI::App* group = app.add_subcommand("daemon", "start, stop and see torpord");
    group->require_subcommand(1);
    add_verb(*group, context, "start", "start it, unless it runs", "", [&context] { return start(context); });
    add_verb(*group, context, "stop", "let requests finish, then stop it", "", [&context] { return stop(context); });
    add_verb(*group, context, "restart", "stop it and start it", "", [&context] { return restart(context); });
    add_json(add_verb(*group, context, "status", "say whether it runs (exit status 3: no)", "",
                      [&context] { return status(context); }),
             context);
    add_verb(*group, context, "enable", "have systemd start it with your login", "", [&context] { return enable(context); });
    add_verb(*group, context, "disable", "stop it, and have systemd start it no more", "", [] { return disable(); });
}

}  // namespace torpor::cli
