// torpor on a terminal: a session to talk with, in plain lines. Also torpor attach and torpor -c.
#include "base/json.hh"
#include "base/fd.hh"
#include "clients/cli/output.hh"
#include "clients/cli/session.hh"
#include "clients/cli/slash.hh"
#include "clients/cli/verbs.hh"

#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <termios.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <deque>
#include <filesystem>
#include <mutex>
#include <optional>
#include <thread>

namespace torpor::cli {

namespace {

constexpr int64_t events_shown_first = 40;  // of what was before, when a session is joined

// One key at a time while it lives, without waiting for a line.
class OneKey {
  public:
    OneKey() {
        ::tcgetattr(STDIN_FILENO, &before_);
        termios raw = before_;
        raw.c_lflag &= ~static_cast<tcflag_t>(ICANON | ECHO);
        ::tcsetattr(STDIN_FILENO, TCSANOW, &raw);
    }
    ~OneKey() { ::tcsetattr(STDIN_FILENO, TCSANOW, &before_); }
    OneKey(const OneKey&) = delete;
    OneKey& operator=(const OneKey&) = delete;

  private:
    termios before_{};
};

class Chat {
  public:
    Chat(Client& client, std::string id) : client_(client), id_(std::move(id)), printer_(stdout, stdout), changed_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
        sigset_t set;
        ::sigemptyset(&set);
        ::sigaddset(&set, SIGINT);
        ::pthread_sigmask(SIG_BLOCK, &set, nullptr);
        interrupts_ = Fd(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
    }

    Result<void> run(int64_t after);

  private:
    struct Question {
        std::string session;  // this one, or one that it began
        int64_t number = 0;
        std::string title, detail, rules, choices;

        bool is(const std::string& of, int64_t question) const { return session == of && number == question; }
    };

    bool take(const SessionEvent& event);
    void show_question();
    bool take_key(char key);
    bool take_line(const std::string& line);
    void interrupt();
    void prompt();

    Client& client_;
    const std::string id_;
    SessionPrinter printer_;  // by the thread that follows, and below mutex_
    Fd changed_, interrupts_;

    std::mutex mutex_;
    std::deque<Question> questions_;    // guarded by mutex_; the first is on the screen
    std::string state_ = "idle";        // guarded by mutex_
    std::optional<Error> error_;        // guarded by mutex_; it can be followed no longer
    bool is_removed_ = false;           // guarded by mutex_
};

bool Chat::take(const SessionEvent& event) {
    std::lock_guard lock(mutex_);
    if (event.kind == "prompt" && Answer::text(event.data, "by") != "owner") {
        printer_.fresh_line();
        print_line(sanitise(fmt::format("{}: {}", Answer::text(event.data, "by"), Answer::text(event.data, "text"))));
    }
    printer_.take(event);
    const bool is_agents = event.kind.starts_with("agent_");
    const std::string session = is_agents ? std::string(Answer::text(event.data, "session")) : id_;
    if (event.kind == "question" || event.kind == "agent_question") {
        questions_.push_back({session, is_agents ? Answer::number(event.data, "question") : event.seq, std::string(Answer::text(event.data, "title")),
                              std::string(Answer::text(event.data, "detail")), Answer::joined(event.data, "rules"), Answer::joined(event.data, "choices")});
    } else if (event.kind == "decided" || event.kind == "agent_decided") {
        std::erase_if(questions_, [&](const Question& one) { return one.is(session, Answer::number(event.data, "question")); });
    } else if (event.kind == "turn_ended" || event.kind == "turn_interrupted") {
        questions_.clear();
    } else if (event.kind == "state") {
        state_ = Answer::text(event.data, "state");
    } else if (event.kind == "removed") {
        is_removed_ = true;
    }
    ::eventfd_write(changed_.get(), 1);
    return true;
}

void Chat::prompt() {
    printer_.fresh_line();
    std::fputs("> ", stdout);
    std::fflush(stdout);
}

// mutex_ held.
void Chat::show_question() {
    const Question& asked = questions_.front();
    printer_.fresh_line();
    print_line(sanitise(fmt::format("? {}{}", asked.session == id_ ? "" : "(an agent of this one) ", asked.title)));
    if (asked.detail != asked.title && !asked.detail.empty()) print_line(sanitise(asked.detail));
    std::fputs(sanitise(fmt::format("  y once, s for this session, a always ({}), n no: ", asked.rules)).c_str(), stdout);
    std::fflush(stdout);
}

// Whether that was an answer.
bool Chat::take_key(char key) {
    Question asked;
    {
        std::lock_guard lock(mutex_);
        if (questions_.empty()) return true;
        asked = questions_.front();
    }
    const std::string_view answer = key == 'y' ? "once" : key == 's' ? "session" : key == 'a' ? "always" : key == 'n' ? "no" : "";
    if (answer.empty()) return false;
    std::fputs(fmt::format("{}\n", answer).c_str(), stdout);
    if (asked.choices.find(answer) == std::string::npos) {
        std::fputs(fmt::format("that cannot be answered here; there are {}\n", asked.choices).c_str(), stdout);
        return false;
    }
    JsonWriter json;
    auto done = client_.post("/api/sessions/" + asked.session + "/answer", json.begin_object().member("question", asked.number).member("answer", answer).end_object().text());
    if (!done) print_line(sanitise(done.error().text()));
    std::lock_guard lock(mutex_);
    std::erase_if(questions_, [&](const Question& one) { return one.is(asked.session, asked.number); });
    return true;
}

void Chat::interrupt() {
    signalfd_siginfo info{};
    while (::read(interrupts_.get(), &info, sizeof info) == sizeof info) {
    }
    auto done = client_.post("/api/sessions/" + id_ + "/interrupt");
    if (!done) return static_cast<void>(print_line(sanitise(done.error().text())));
    if (!Answer::truth(done->root(), "interrupted")) print_line("\nnothing is under way; Ctrl-D leaves");
}

// False: the person leaves.
bool Chat::take_line(const std::string& line) {
    if (line.find_first_not_of(" \t") == std::string::npos) return true;
    if (line.starts_with('/')) return run_slash(client_, id_, line);
    auto sent = send_prompt(client_, id_, line);
    if (!sent) print_line(sanitise(sent.error().text()));
    return true;
}

Result<void> Chat::run(int64_t after) {
    Client following(client_.folders());
    std::thread follower([this, &following, after] {
        int64_t last = after;
        auto done = follow_session(following, id_, last, [this](const SessionEvent& event) { return take(event); });
        std::lock_guard lock(mutex_);
        if (!done) error_ = done.error();
        ::eventfd_write(changed_.get(), 1);
    });
    struct End {
        Client& client;
        std::thread& thread;
        ~End() {
            client.end();
            thread.join();
        }
    } end{following, follower};
    std::optional<OneKey> one_key;
    std::string shown;  // session and number of the question that is on the screen
    std::string line, was;
    for (;;) {
        {
            std::lock_guard lock(mutex_);
            if (error_) return Failure(*error_);
            if (is_removed_) {
                print_line("the session was removed");
                return {};
            }
            if (questions_.empty()) {
                one_key.reset();
                shown.clear();
            } else if (const std::string now = fmt::format("{} {}", questions_.front().session, questions_.front().number); now != shown) {
                shown = now;
                if (!one_key) one_key.emplace();
                show_question();
            }
            if (state_ == "idle" && was != "idle") prompt();
            was = state_;
        }
        std::array<pollfd, 3> waits{pollfd{STDIN_FILENO, POLLIN, 0}, pollfd{changed_.get(), POLLIN, 0}, pollfd{interrupts_.get(), POLLIN, 0}};
        ::poll(waits.data(), waits.size(), -1);
        eventfd_t ignored = 0;
        ::eventfd_read(changed_.get(), &ignored);
        if (waits[2].revents != 0) interrupt();
        if (waits[0].revents == 0) continue;
        std::array<char, 4096> piece;
        const ssize_t count = ::read(STDIN_FILENO, piece.data(), piece.size());
        if (count <= 0) break;
        if (one_key) {
            if (piece[0] == 4) break;  // Ctrl-D, which is a key like any other now
            if (!take_key(piece[0])) shown.clear();
            continue;
        }
        line.append(piece.data(), static_cast<size_t>(count));
        for (size_t end = line.find('\n'); end != std::string::npos; end = line.find('\n')) {
            const std::string one = line.substr(0, end);
            line.erase(0, end + 1);
            if (!take_line(one)) return {};
            std::lock_guard lock(mutex_);
            if (state_ == "idle" && one.starts_with('/')) prompt();
        }
    }
    one_key.reset();
    std::lock_guard lock(mutex_);
    print_line(state_ == "idle" ? fmt::format("\ntorpor attach {} comes back", id_.substr(0, 14)) : fmt::format("\nit goes on; torpor attach {} comes back", id_.substr(0, 14)));
    return {};
}

Result<void> talk(Client& client, const std::string& id) {
    if (::isatty(STDIN_FILENO) == 0) return fail(Kind::invalid, "this needs a terminal; torpor run \"PROMPT\" does not");
    auto row = client.get("/api/sessions/" + id);
    if (!row) return Failure(row.error());
    print_line(sanitise(fmt::format("{} in {}, {} ({}); /help shows what else there is", id.substr(0, 14), Answer::text(row->root(), "folder"),
                                    Answer::text(row->root(), "model"), Answer::text(row->root(), "mode"))));
    Chat chat(client, id);
    return chat.run(std::max<int64_t>(0, Answer::number(row->root(), "events") - events_shown_first));
}

}  // namespace

void add_chat(CLI::App& app, Context& context) {
    static NewSession made;
    static std::string id;
    static bool goes_on = false;
    const auto here = [] { return std::filesystem::current_path().string(); };
    CLI::App* chat = add_verb(app, context, "chat", "talk with an agent in this folder (also: torpor alone)",
                              "  torpor chat --model anthropic/claude-sonnet-4-5\n  torpor -c", [&context, here]() -> Result<void> {
                                  made.folder = here();
                                  auto session = goes_on ? last_session(context.client, here()) : create_session(context.client, made);
                                  if (!session) return Failure(session.error());
                                  return talk(context.client, *session);
                              });
    chat->add_option("--model", made.model, "PROVIDER/MODEL, or a model of this machine");
    chat->add_option("--mode", made.mode, "what it may do without a question")
        ->check(CLI::IsMember(std::vector<std::string>{"read-only", "workspace-write", "danger-full-access"}));
    chat->add_flag("-c,--continue", goes_on, "go on with this folder's last session");
    add_verb(app, context, "attach", "join a session, live; this folder's last one by default", "  torpor attach 01kaxw", [&context, here]() -> Result<void> {
        auto session = id.empty() ? last_session(context.client, here()) : complete_session(context.client, id);
        if (!session) return Failure(session.error());
        return talk(context.client, *session);
    })->add_option("SESSION", id, "its id, or the beginning of it");
}

}  // namespace torpor::cli
