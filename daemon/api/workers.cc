// A model's worker: putting it to sleep, waking it, ending it, and what it wrote.
#include "daemon/answers.hh"
#include "daemon/api/body.hh"
#include "daemon/api/handlers.hh"
#include "daemon/daemon.hh"
#include "gpu/limits.hh"

#include <fcntl.h>
#include <poll.h>
#include <sys/inotify.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>

namespace torpor::api {

namespace {

void answer_status(Call& call, http::Response& response, const Result<void>& done) {
    if (!done) return answer_error(response, done.error());
    show_model(call, response);
}

bool is_forced(const Call& call) {
    return call.request.get_param_value("force") == "true";
}

}  // namespace

void suspend_model(Call& call, http::Response& response) {
    bool with_state = false;
    if (!call.body.text.empty()) {
        auto body = Body::parse(call.body.text, {"with_state"});
        if (!body) return answer_error(response, body.error());
        body->truth("with_state", with_state);
        if (body->error()) return answer_error(response, *body->error());
    }
    answer_status(call, response, call.daemon.pool.suspend(call.parameters[0], is_forced(call), with_state));
}

void stop_model(Call& call, http::Response& response) {
    answer_status(call, response, call.daemon.pool.stop(call.parameters[0], is_forced(call)));
}

void resume_model(Call& call, http::Response& response) {
    const int client_fd = http::current_connection()->stream.socket();
    Result<void> done;
    if (auto lease = call.daemon.pool.acquire_blocking({call.parameters[0], call.principal.name}, client_fd, gpu::wait_max); !lease) {
        done = Failure(lease.error());
    }
    answer_status(call, response, done);
}

namespace {

constexpr size_t log_bytes_default = 64 * 1024;

// Sends what is added to a log until the reader leaves.
class LogFollower {
  public:
    LogFollower(std::filesystem::path path, uint64_t offset) : path_(std::move(path)), offset_(offset) {
        inotify_ = Fd(::inotify_init1(IN_CLOEXEC | IN_NONBLOCK));
        ::inotify_add_watch(inotify_.get(), path_.c_str(), IN_MODIFY);
    }

    // False when the reader has left.
    bool send_next(int client_fd, httplib::DataSink& sink, const std::atomic<bool>& stopping) {
        constexpr int heartbeat_ms = 1000;  // how soon a shutdown is noticed
        std::array<char, 16 * 1024> buffer;
        Fd file(::open(path_.c_str(), O_RDONLY | O_CLOEXEC));
        const off_t size = file ? ::lseek(file.get(), 0, SEEK_END) : 0;
        if (static_cast<uint64_t>(size) < offset_) offset_ = 0;  // it was rotated
        const ssize_t count = file ? ::pread(file.get(), buffer.data(), buffer.size(), static_cast<off_t>(offset_)) : 0;
        if (count > 0) {
            offset_ += static_cast<uint64_t>(count);
            return sink.write(buffer.data(), static_cast<size_t>(count));
        }
        if (stopping) {
            sink.done();
            return true;
        }
        pollfd waits[2] = {{inotify_.get(), POLLIN, 0}, {client_fd, POLLRDHUP, 0}};
        ::poll(waits, 2, heartbeat_ms);
        if (waits[1].revents != 0) return false;
        while (::read(inotify_.get(), buffer.data(), buffer.size()) > 0) {
        }
        return true;
    }

  private:
    std::filesystem::path path_;
    uint64_t offset_;
    Fd inotify_;
};

}  // namespace

namespace {

// The end of a file, and with ?follow=true what is added to it. `what` wrote nothing yet if there is none.
void answer_tail(Call& call, http::Response& response, const std::filesystem::path& path, const std::string& what) {
    size_t bytes = log_bytes_default;
    const std::string wanted = call.request.get_param_value("bytes");
    std::from_chars(wanted.data(), wanted.data() + wanted.size(), bytes);
    const std::string tail = read_tail(path, std::min(bytes, gpu::worker_log_bytes_max));
    if (call.request.get_param_value("follow") != "true") return response.set_content(tail, "text/plain; charset=utf-8");

    std::error_code code;
    const uint64_t size = std::filesystem::file_size(path, code);
    if (code) return answer_error(response, {Kind::not_found, what + " has not written anything yet", {}});
    auto follower = std::make_shared<LogFollower>(path, size - std::min<uint64_t>(size, tail.size()));
    auto* connection = &http::current_connection()->stream;
    response.set_chunked_content_provider(
        "text/plain; charset=utf-8",
        [follower, connection, slot = call.long_slot, &daemon = call.daemon](size_t, httplib::DataSink& sink) {
            return connection->flush() && follower->send_next(connection->socket(), sink, daemon.is_stopping);
        });
}

}  // namespace

void show_log(Call& call, http::Response& response) {
    auto model = call.daemon.pool.find(call.parameters[0]);
    if (!model) return answer_error(response, model.error());
    answer_tail(call, response, call.daemon.folders.logs() / (model->name + ".log"), model->name);
}

void show_requests(Call& call, http::Response& response) {
    answer_tail(call, response, call.daemon.folders.request_log(), "the gateway");
}

}  // namespace torpor::api
