#include "clients/cli/client.hh"

#include "clients/cli/autostart.hh"

#include <httplib.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>

namespace torpor::cli {

namespace {

constexpr std::chrono::minutes answer_time_max{15};      // above the daemon's own deadlines, which say more
constexpr size_t error_bytes_max = 64 * 1024;            // of an error's body
constexpr size_t answer_bytes_max = 16 * 1024 * 1024;    // of a whole answer

Failure error_from(const std::string& body, int status) {
    auto answer = Answer::parse(body);
    simdjson::dom::element error;
    if (!answer || answer->root()["error"].get(error) != simdjson::SUCCESS) {
        return fail(Kind::internal, "torpord answered with status {}", status);
    }
    // Torpor's own shape has a kind; the OpenAI one has it as the code.
    std::string_view kind = Answer::text(error, "kind");
    if (kind.empty()) kind = Answer::text(error, "code");
    return Failure(Error{row_of_answer(kind, status).kind, std::string(Answer::text(error, "message")),
                         std::string(Answer::text(error, "cause"))});
}

std::atomic<int> interrupted_socket{-1};

// Half a connection is closed: the other half still brings the answer.
void on_interrupt(int) {
    ::shutdown(interrupted_socket, SHUT_WR);
    constexpr std::string_view text = "\ntorpor: cancelling; once more to leave at once\n";
    (void)!::write(STDERR_FILENO, text.data(), text.size());
}

void watch_interrupts(int socket) {
    interrupted_socket = socket;
    struct sigaction action {};
    action.sa_handler = on_interrupt;
    action.sa_flags = static_cast<int>(SA_RESTART | SA_RESETHAND);
    ::sigaction(SIGINT, &action, nullptr);
}

}  // namespace

Result<Answer> Answer::parse(std::string text) {
    Answer answer;
    if (answer.parser_->parse(text).get(answer.root_) != simdjson::SUCCESS) {
        return fail(Kind::internal, "torpord's answer is not JSON; is another version running? torpor daemon restart ends it");
    }
    return answer;
}

std::string_view Answer::text(simdjson::dom::element object, std::string_view key) {
    std::string_view value;
    return object[key].get(value) == simdjson::SUCCESS ? value : std::string_view();
}

int64_t Answer::number(simdjson::dom::element object, std::string_view key) {
    int64_t value = 0;
    return object[key].get(value) == simdjson::SUCCESS ? value : 0;
}

bool Answer::truth(simdjson::dom::element object, std::string_view key) {
    bool value = false;
    return object[key].get(value) == simdjson::SUCCESS && value;
}

simdjson::dom::array Answer::list(simdjson::dom::element object, std::string_view key) {
    static simdjson::dom::parser parser;
    static const simdjson::dom::array nothing = parser.parse(std::string_view("[]")).value_unsafe().get_array().value_unsafe();
    simdjson::dom::array value;
    return object[key].get(value) == simdjson::SUCCESS ? value : nothing;
}

std::string Answer::joined(simdjson::dom::element object, std::string_view key) {
    std::string all;
    for (const simdjson::dom::element item : list(object, key)) {
        std::string_view text;
        if (item.get(text) != simdjson::SUCCESS) continue;
        if (!all.empty()) all += ", ";
        all += text;
    }
    return all;
}

Result<Client::Streamed> Client::stream(const std::string& method, const std::string& path, const std::string& body,
                                        const Take& take) {
    if (autostart_ && !is_running(folders_)) {
        if (auto running = ensure_running(folders_); !running) return Failure(running.error());
        if (::isatty(STDERR_FILENO) != 0) std::fputs("torpor: torpord is started; torpor daemon stop ends it\n", stderr);
    }
    httplib::Client http(folders_.socket().string(), 80);
    {
        std::lock_guard lock(mutex_);
        if (has_ended_) return fail(Kind::cancelled, "it was ended");
        end_connection_ = [&http] { http.stop(); };
    }
    struct Forget {
        Client& client;
        ~Forget() {
            std::lock_guard lock(client.mutex_);
            client.end_connection_ = nullptr;
        }
    } forget{*this};
    http.set_address_family(AF_UNIX);
    http.set_read_timeout(answer_time_max);
    http.set_write_timeout(answer_time_max);

    httplib::Request request;
    request.method = method;
    request.path = path;
    request.set_header("Host", "localhost");
    if (!body.empty()) {
        request.body = body;
        request.set_header("Content-Type", "application/json");
    }
    Streamed streamed;
    int status = 0;
    bool stopped = false;
    std::string error_body;
    request.response_handler = [&](const httplib::Response& response) {
        status = response.status;
        streamed.server_timing = response.get_header_value("Server-Timing");
        if (ends_sending_) watch_interrupts(http.socket());
        return !has_ended();  // stop() does nothing to a connection that is being made
    };
    request.content_receiver = [&](const char* data, size_t size, size_t, size_t) {
        if (status < 400) {
            stopped = !take({data, size});
            return !stopped;
        }
        error_body.append(data, std::min(size, error_bytes_max - std::min(error_body.size(), error_bytes_max)));
        return true;
    };
    httplib::Result result = http.send(request);
    if (autostart_ && !result && status == 0 && result.error() == httplib::Error::Connection) {
        // One that was killed was still there a moment ago. Nothing has been sent: start another and ask that.
        if (auto running = ensure_running(folders_); !running) return Failure(running.error());
        result = http.send(request);
    }
    if (stopped) return streamed;
    if (!result && status == 0) {
        if (result.error() != httplib::Error::Connection) {
            return fail(Kind::unavailable, "torpord did not answer ({})", httplib::to_string(result.error()));
        }
        return fail(Kind::no_daemon, "torpord is not running ({}); torpor daemon start starts it", folders_.socket().string());
    }
    if (status >= 400) return error_from(error_body, status);
    if (!result) return fail(Kind::unavailable, "torpord's answer broke off ({})", httplib::to_string(result.error()));
    return streamed;
}

void Client::end() {
    std::lock_guard lock(mutex_);
    has_ended_ = true;
    if (end_connection_) end_connection_();
}

bool Client::has_ended() const {
    std::lock_guard lock(mutex_);
    return has_ended_;
}

Result<Answer> Client::call(const std::string& method, const std::string& path, const std::string& body) {
    std::string whole;
    const auto take = [&](std::string_view piece) {
        whole += piece;
        return whole.size() <= answer_bytes_max;
    };
    auto done = stream(method, path, body, take);
    // A daemon that ends just now takes our connection with it. Looking twice changes nothing, so look again.
    if (!done && done.error().kind == Kind::unavailable && method == "GET" && whole.empty()) done = stream(method, path, body, take);
    if (!done) return Failure(done.error());
    return Answer::parse(std::move(whole));
}

Result<Answer> Client::get(const std::string& path) {
    return call("GET", path, "");
}

Result<Answer> Client::post(const std::string& path, const std::string& body) {
    return call("POST", path, body);
}

Result<Answer> Client::remove(const std::string& path) {
    return call("DELETE", path, "");
}

std::string escape_path(std::string_view text) {
    std::string escaped;
    for (const unsigned char c : text) {
        if (std::isalnum(c) != 0 || c == '-' || c == '.' || c == '_' || c == ':') {
            escaped += static_cast<char>(c);
        } else {
            escaped += fmt::format("%{:02X}", c);
        }
    }
    return escaped;
}

}  // namespace torpor::cli
