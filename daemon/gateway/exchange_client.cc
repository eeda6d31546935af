// The client's side of an exchange: heads, chunks, errors, and how it ends.
#include "daemon/gateway/exchange.hh"

#include "base/text.hh"

#include <httplib.h>
#include <sys/epoll.h>

namespace torpor::gateway {

std::string Exchange::answer_head(int status, std::string_view type) const {
    std::string head = fmt::format(
        "HTTP/1.1 {} {}\r\nContent-Type: {}\r\nServer-Timing: queue;dur={:.2f}, wake;dur={:.2f};desc={}, first;dur={:.2f}\r\n",
        status, httplib::status_message(status), type, outcome_.queue_ms, outcome_.wake_ms, gpu::name_of(outcome_.wake),
        outcome_.first_byte_ms);
    if (inquiry_.permit) head += inquiry_.permit->headers;
    if (must_close_ || !inquiry_.client->keeps_alive()) head += "Connection: close\r\n";
    return head;
}

void Exchange::begin_stream() {
    if (stream_has_begun_) return;
    stream_has_begun_ = outcome_.streamed = true;
    outcome_.status = 200;
    must_close_ = inquiry_.is_http_1_0;
    out_ += answer_head(200, "text/event-stream") + "Cache-Control: no-cache\r\n" +
            (inquiry_.is_http_1_0 ? "\r\n" : "Transfer-Encoding: chunked\r\n\r\n");
}

void Exchange::add_chunk(std::string_view bytes) {
    if (bytes.empty()) return;
    if (inquiry_.is_http_1_0) {
        out_.append(bytes);
        return;
    }
    fmt::format_to(std::back_inserter(out_), "{:x}\r\n", bytes.size());
    out_.append(bytes).append("\r\n");
}

void Exchange::end_stream() {
    outcome_.usage = tap_.usage();
    if (!inquiry_.is_http_1_0) out_ += "0\r\n\r\n";
    stage_ = Stage::ended;
    flush();
}

void Exchange::fail(const Error& error) {
    let_worker_go(false);
    std::string().swap(whole_);
    whole_share_.release();
    outcome_.failure = row_of(error.kind).name;
    outcome_.limit = error.limit;
    if (stream_has_begun_) {
        std::string rest;
        tap_.cut(rest);
        add_chunk(rest + inquiry_.wire->error_event(error));
        return end_stream();
    }
    stage_ = Stage::ended;
    outcome_.status = row_of(error.kind).http_status;
    const std::string body = inquiry_.wire->error_body(error);
    out_ = answer_head(outcome_.status, "application/json");
    if (error.kind == Kind::busy || error.kind == Kind::unavailable) out_ += fmt::format("Retry-After: {}\r\n", error.retry_after_s);
    out_ += fmt::format("Content-Length: {}\r\n\r\n{}", body.size(), body);
    flush();
}

// Sends what the client takes. While it takes none, no more is read from the worker.
void Exchange::flush() {
    while (out_start_ < out_.size()) {
        const ssize_t sent = inquiry_.client->send(std::string_view(out_).substr(out_start_));
        if (sent < 0) return abandon("cancelled", 499);
        if (sent == 0) break;
        out_start_ += static_cast<size_t>(sent);
        client_moved_ = Clock::now();
    }
    if (out_start_ == out_.size()) {
        out_.clear();
        out_start_ = 0;
        if (out_.capacity() > piece_bytes * 2) out_.shrink_to_fit();
        if (stage_ == Stage::ended) return end();
    }
    watch_client();
}

void Exchange::watch_client() {
    const bool is_full = !out_.empty();
    const uint32_t events = is_full ? EPOLLRDHUP | static_cast<uint32_t>(inquiry_.client->send_events()) : EPOLLRDHUP;
    if (events != client_events_) {
        shared_.relay.watch(EPOLL_CTL_MOD, inquiry_.client->socket(), id_, Relay::Side::client, events);
        client_events_ = events;
        if (is_full) client_moved_ = Clock::now();
    }
    if (!worker_ || is_full != worker_is_watched_) return;
    if (!is_full) return watch_worker();
    // Taken out altogether: a hang-up would be told again and again.
    shared_.relay.watch(EPOLL_CTL_DEL, worker_.get(), id_, Relay::Side::worker, 0);
    worker_is_watched_ = false;
}

void Exchange::on_client(uint32_t events) {
    if ((events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0) return abandon("cancelled", 499);
    if ((events & (EPOLLOUT | EPOLLIN)) != 0) flush();  // in: where TLS must read before it can write
}

void Exchange::tell_waiting(Clock::time_point now) {
    if (!inquiry_.wants_stream || now - told_ < tell_gap || !out_.empty()) return;
    told_ = now;
    begin_stream();
    const auto waited = std::chrono::duration_cast<std::chrono::seconds>(now - began_);
    add_chunk(inquiry_.wire->waiting_event(fmt::format("{} is waking up, {} s so far", inquiry_.model, waited.count())));
    flush();
}

// The client is gone, or taken for gone.
void Exchange::abandon(std::string_view failure, int status) {
    if (ticket_) shared_.pool.cancel(ticket_);
    let_worker_go(false);
    stage_ = Stage::ended;
    outcome_.failure = failure;
    outcome_.status = status;
    report();
    inquiry_.client.reset();  // closes it
    shared_.relay.remove(id_);
}

void Exchange::end() {
    report();
    shared_.relay.watch(EPOLL_CTL_DEL, inquiry_.client->socket(), id_, Relay::Side::client, 0);
    if (!must_close_) inquiry_.client->give_back();
    inquiry_.client.reset();
    shared_.relay.remove(id_);
}

void Exchange::report() {
    if (std::exchange(is_reported_, true)) return;
    outcome_.total_ms = std::chrono::duration<double, std::milli>(Clock::now() - began_).count();
    if (shared_.on_outcome) shared_.on_outcome(outcome_);
}

}  // namespace torpor::gateway
