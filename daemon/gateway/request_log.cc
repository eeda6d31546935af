#include "daemon/gateway/request_log.hh"

#include "base/json.hh"
#include "base/log.hh"
#include "daemon/gateway/limits.hh"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

namespace torpor::gateway {

void RequestLog::add(const Outcome& outcome) {
    JsonWriter json;
    json.begin_object()
        .member("time", log::time_text(std::chrono::system_clock::now()))
        .member("key", outcome.principal)
        .member("model", outcome.model)
        .member("wire", outcome.wire->name)
        .member("status", outcome.status);
    if (!outcome.failure.empty()) json.member("failure", outcome.failure);
    json.member("stream", outcome.streamed)
        .member("input_tokens", outcome.usage.input_tokens)
        .member("output_tokens", outcome.usage.output_tokens)
        .key("ms").raw(fmt::format("{:.2f}", outcome.total_ms))
        .key("first_ms").raw(fmt::format("{:.2f}", outcome.first_byte_ms))
        .key("queue_ms").raw(fmt::format("{:.2f}", outcome.queue_ms))
        .key("wake_ms").raw(fmt::format("{:.2f}", outcome.wake_ms))
        .member("wake", gpu::name_of(outcome.wake))
        .end_object();
    bool is_much = false;
    {
        std::lock_guard lock(mutex_);
        waiting_ += json.text() + "\n";
        is_much = waiting_.size() > request_log_held_bytes_max;
    }
    if (is_much) flush();
}

void RequestLog::flush() {
    std::lock_guard lock(mutex_);
    if (waiting_.empty()) return;
    if (!file_) file_ = Fd(::open(path_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600));
    struct stat info{};
    if (file_ && ::fstat(file_.get(), &info) == 0 && !write_all(file_.get(), waiting_, 0)) {
        // A full disk loses lines of this log, nothing else, and none is cut.
        (void)!::ftruncate(file_.get(), info.st_size);
    }
    waiting_.clear();
    if (file_ && ::fstat(file_.get(), &info) == 0 && static_cast<size_t>(info.st_size) > request_log_bytes_max) {
        ::rename(path_.c_str(), (path_.string() + ".1").c_str());
        file_.reset();
    }
}

}  // namespace torpor::gateway
