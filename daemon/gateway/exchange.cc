#include "daemon/gateway/exchange.hh"

#include "base/log.hh"
#include "base/text.hh"

#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <strings.h>

#include <cerrno>

namespace torpor::gateway {

namespace {

double ms_between(Exchange::Clock::time_point from, Exchange::Clock::time_point to) {
    return std::chrono::duration<double, std::milli>(to - from).count();
}

bool begins_with(std::string_view type, std::string_view wanted) {
    return type.size() >= wanted.size() && ::strncasecmp(type.data(), wanted.data(), wanted.size()) == 0;
}

bool is_event_stream(std::string_view type) {
    return begins_with(type, "text/event-stream");
}

// An engine that does not say is believed.
bool is_json(std::string_view type) {
    const size_t plus = type.find('+');
    return type.empty() || begins_with(type, "application/json") ||
           (plus != std::string_view::npos && begins_with(type.substr(plus), "+json"));
}

Error too_late(std::string what, std::chrono::milliseconds limit, std::string_view name) {
    return {Kind::timeout, fmt::format("{} within {}", what, format_duration(limit)), {}, name};
}

}  // namespace

Exchange::Exchange(Shared& shared, Inquiry inquiry)
    : shared_(shared), inquiry_(std::move(inquiry)), id_(shared.relay.next_id()), tap_(inquiry_.drops_usage),
      whole_share_(shared.answer_bytes),
      outcome_{inquiry_.wire, inquiry_.model, inquiry_.principal, 0, {}, {}, false, gpu::Wake::warm, {}, 0, 0, 0, 0} {}

Exchange::~Exchange() = default;

void Exchange::begin() {
    gpu::Pool::Ticket none;
    auto lease = shared_.pool.acquire({inquiry_.model, inquiry_.principal, 0, inquiry_.keep_alive}, nullptr, none);
    if (lease && *lease) take_lease(std::move(*lease));  // any other outcome comes again when it is asked for in earnest
}

void Exchange::start_watching() {
    is_adopted_ = true;
    client_events_ = EPOLLRDHUP;
    shared_.relay.watch(EPOLL_CTL_ADD, inquiry_.client->socket(), id_, Relay::Side::client, client_events_);
    watch_worker();
}

void Exchange::go_on() {
    lease_ ? connect_again() : ask_for_lease();
}

void Exchange::ask_for_lease() {
    stage_ = Stage::waiting;
    const auto later = [&relay = shared_.relay, id = id_](Result<gpu::Lease> lease) {
        auto carried = std::make_shared<Result<gpu::Lease>>(std::move(lease));
        relay.post(id, [carried](Exchange& exchange) { exchange.take_lease(std::move(*carried)); });
    };
    auto at_once = shared_.pool.acquire({inquiry_.model, inquiry_.principal, dead_generation_, inquiry_.keep_alive}, later, ticket_);
    if (at_once) take_lease(std::move(*at_once));
}

void Exchange::take_lease(Result<gpu::Lease> lease) {
    ticket_.reset();
    if (!lease) return fail(lease.error());
    lease_ = std::move(*lease);
    outcome_.wake = lease_->wake;
    outcome_.queue_ms = lease_->queue_ms;
    outcome_.wake_ms = lease_->wake_ms;
    find_seat();
}

// What the worker knows of this conversation already, or once did.
void Exchange::find_seat() {
    gpu::PromptKeeper* const prompts = inquiry_.conversation ? lease_->prompts() : nullptr;
    if (prompts == nullptr) return connect_again();
    const bool may_choose = inquiry_.wire->wire != gpu::Wire::anthropic_messages;  // engines drop what that wire does not know
    if (auto seat = prompts->begin(*inquiry_.conversation, may_choose)) {
        seat_ = std::move(*seat);
        return connect_again();
    }
    if (!is_adopted_) return lease_.reset();  // go_on() asks for it again
    awaits_seat_ = true;
    prompts->prepare(*inquiry_.conversation, may_choose, [&relay = shared_.relay, id = id_](gpu::PromptSeatPtr seat) {
        relay.post(id, [seat = std::move(seat)](Exchange& exchange) {
            if (!std::exchange(exchange.awaits_seat_, false)) return;
            exchange.seat_ = seat;
            exchange.connect_again();
        });
    });
}

// Connects and sends what the worker takes at once.
void Exchange::connect_again() {
    if (!lease_ || worker_ || awaits_seat_) return;
    moved_ = stage_ == Stage::sending ? moved_ : Clock::now();
    stage_ = Stage::sending;
    auto connected = connect();
    if (!connected && connected.error().kind == Kind::busy) {
        if (is_adopted_) shared_.relay.again_soon(id_);  // otherwise go_on() sees to it
        return;
    }
    if (!connected) return worker_failed(connected.error());
    after_sending(send_more());
    if (worker_ && !worker_is_watched_ && is_adopted_) watch_worker();
}

Result<void> Exchange::connect() {
    auto connection = lease_->connections().take(was_kept_);
    if (!connection) return Failure(connection.error());
    worker_ = std::move(*connection);
    const std::string choice = choice_of_slot();
    body_begin_ = choice.empty() ? 0 : inquiry_.body.text.find('{') + 1;
    head_ = fmt::format("{}{}Content-Length: {}\r\n\r\n{}", inquiry_.head, gpu::key_header(lease_->connections().endpoint()),
                        choice.size() + inquiry_.body.text.size() - body_begin_, choice);
    parser_ = ResponseParser();
    decoded_.clear();
    sent_ = 0;
    is_sent_ = false;
    return {};
}

// How the body begins instead of with its bracket. It has members, its model for one.
std::string Exchange::choice_of_slot() const {
    return seat_ && seat_->slot >= 0 ? fmt::format(R"({{"id_slot":{},)", seat_->slot) : "";
}

// True when the request is sent whole.
Result<bool> Exchange::send_more() {
    const std::string_view head = head_;
    const std::string_view body = std::string_view(inquiry_.body.text).substr(std::min(body_begin_, inquiry_.body.text.size()));
    while (sent_ < head.size() + body.size()) {
        const size_t of_head = std::min(sent_, head.size());
        const size_t of_body = sent_ - of_head;
        iovec parts[2] = {{const_cast<char*>(head.data()) + of_head, head.size() - of_head},
                          {const_cast<char*>(body.data()) + of_body, body.size() - of_body}};
        msghdr message{};
        message.msg_iov = parts;
        message.msg_iovlen = 2;
        const ssize_t count = ::sendmsg(worker_.get(), &message, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (count < 0 && errno == EINTR) continue;
        if (count < 0 && (errno == EAGAIN || errno == ENOTCONN)) return false;
        if (count < 0) {  // it has closed; what it said before comes first
            stage_ = Stage::head;
            return false;
        }
        sent_ += static_cast<size_t>(count);
        moved_ = Clock::now();
    }
    return true;
}

void Exchange::after_sending(Result<bool> sent) {
    if (!sent) return worker_failed(sent.error());
    if (!*sent) return;
    is_sent_ = true;
    stage_ = Stage::head;
}

void Exchange::watch_worker() {
    if (!worker_) return;
    const uint32_t events = stage_ == Stage::sending ? EPOLLIN | EPOLLOUT : EPOLLIN;
    shared_.relay.watch(worker_is_watched_ ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, worker_.get(), id_, Relay::Side::worker, events);
    worker_is_watched_ = true;
}

void Exchange::on_worker(uint32_t events) {
    if (!worker_) return;
    if (stage_ == Stage::sending && (events & EPOLLOUT) != 0) {
        after_sending(send_more());
        if (stage_ == Stage::head) watch_worker();
        if (!worker_) return;
    }
    if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0) read_piece();
}

void Exchange::read_piece() {
    auto& buffer = shared_.relay.buffer();
    const ssize_t count = ::recv(worker_.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
    if (count < 0 && (errno == EAGAIN || errno == EINTR)) return;
    Result<void> taken;
    bool is_nonsense = false;
    if (count > 0) {
        taken = parser_.feed({buffer.data(), static_cast<size_t>(count)}, decoded_);
        is_nonsense = !taken.has_value();
    } else if (count == 0 && parser_.has_head()) {
        taken = parser_.finish();
    } else {
        taken = count == 0 ? Result<void>(torpor::fail(Kind::engine, "the engine closed the connection without an answer"))
                           : Result<void>(fail_errno(Kind::engine, "the engine's connection broke"));
    }
    if (!parser_.has_head()) {  // a head that drips has no more time for it than any other
        if (!taken) worker_failed(taken.error(), !is_nonsense || was_kept_);
        return;
    }
    moved_ = Clock::now();
    if (stage_ == Stage::head || stage_ == Stage::sending) begin_answer();
    if (stage_ != Stage::ended) pass_on();
    if (!taken && stage_ != Stage::ended) worker_failed(taken.error());
}

void Exchange::begin_answer() {
    outcome_.first_byte_ms = ms_between(began_, moved_) - outcome_.wake_ms - outcome_.queue_ms;
    inquiry_.body.clear();
    const bool is_stream = parser_.status() < 300 && is_event_stream(parser_.content_type());
    stage_ = is_stream ? Stage::streaming : Stage::collecting;
    if (!is_sent_) watch_worker();  // not for sending any more
    if (auto wrong = wrong_type(is_stream)) return fail(*wrong);
    if (is_stream) begin_stream();
}

// Clients read nothing, or nonsense, from an answer of another kind than they asked for, and do not say why.
std::optional<Error> Exchange::wrong_type(bool is_stream) const {
    if (parser_.status() >= 300) return {};
    const std::string type = parser_.content_type().substr(0, 100);
    if (is_stream && !inquiry_.wants_stream) {
        return Error{Kind::engine, "the engine sent an event stream where a whole answer was asked for", {}};
    }
    if (!is_stream && !is_json(type)) return Error{Kind::engine, fmt::format("the engine's answer is {}, not JSON", type), {}};
    if (!is_stream && inquiry_.wants_stream && inquiry_.wire->has_streams) {
        return Error{Kind::engine, "the engine sent a whole answer where an event stream was asked for", {}};
    }
    return {};
}

// Brings what was decoded a step further, and ends the exchange when the answer is complete.
void Exchange::pass_on() {
    const bool is_complete = parser_.is_complete();
    if (stage_ == Stage::streaming) {
        std::string passed;
        tap_.feed(decoded_, passed);
        decoded_.clear();
        if (is_complete) {
            tap_.finish(passed);
            if (seat_) seat_->answered(tap_.usage().all_tokens());
            let_worker_go(true);
        }
        add_chunk(passed);
        if (is_complete) return end_stream();
        return flush();
    }
    if (!whole_share_.grow(decoded_.size()) || whole_.size() + decoded_.size() > whole_answer_bytes_max) {
        return fail({Kind::engine, fmt::format("the engine's answer is larger than {} bytes, or all that are under way are larger than {}",
                                               whole_answer_bytes_max, answer_bytes_in_flight_max), {}, "answer_bytes"});
    }
    whole_.append(decoded_);
    decoded_.clear();
    if (!is_complete) return;
    if (parser_.status() < 300) read_usage(whole_, outcome_.usage);
    if (seat_) seat_->answered(outcome_.usage.all_tokens());
    let_worker_go(true);
    finish_whole();
}

void Exchange::finish_whole() {
    const std::string type = parser_.content_type().empty() ? "application/json" : parser_.content_type();
    if (stream_has_begun_ || !is_json(type)) {  // it was told to wait, so this must come as an event; or is no error that clients can read
        return fail({parser_.status() < 500 ? Kind::invalid : Kind::engine,
                     fmt::format("the engine refused the request (its status is {})", parser_.status()), whole_.substr(0, 4096)});
    }
    outcome_.status = parser_.status();
    stage_ = Stage::ended;
    out_ = answer_head(parser_.status(), type) + fmt::format("Content-Length: {}\r\n\r\n", whole_.size());
    out_.append(whole_);
    std::string().swap(whole_);
    flush();
}

// The engine's part is over: `is_done`, its connection can serve the next one; otherwise it is closed.
void Exchange::let_worker_go(bool is_done) {
    if (worker_) {
        if (worker_is_watched_) shared_.relay.watch(EPOLL_CTL_DEL, worker_.get(), id_, Relay::Side::worker, 0);
        worker_is_watched_ = false;
        if (is_done && is_sent_ && parser_.keeps_alive() && lease_) {
            lease_->connections().give_back(std::move(worker_));
        }
        worker_.reset();
    }
    awaits_seat_ = false;
    seat_.reset();
    lease_.reset();
}

// `may_repeat`: as far as the caller can tell.
void Exchange::worker_failed(Error error, bool may_repeat) {
    may_repeat = may_repeat && !parser_.has_head() && error.kind == Kind::engine;
    const uint64_t generation = lease_ ? lease_->generation() : 0;
    if (may_repeat && was_kept_ && !was_replaced_) {  // the engine had closed it between two requests
        was_replaced_ = true;
        worker_.reset();
        worker_is_watched_ = false;
        return connect_again();
    }
    let_worker_go(false);
    if (is_adopted_ && (!may_repeat || tries_ == tries_max)) return fail(error);
    log::info("{}: asking again: {}", inquiry_.model, error.text());
    ++tries_;
    dead_generation_ = generation;
    was_replaced_ = false;
    stage_ = Stage::waiting;
    if (is_adopted_) ask_for_lease();  // otherwise go_on() sees to it
}

void Exchange::on_tick(Clock::time_point now) {
    if (!out_.empty() && now - client_moved_ > shared_.client_stall) {
        outcome_.limit = "client_stall";
        return abandon("slow_client", 499);
    }
    switch (stage_) {
        case Stage::waiting:
            if (now - began_ > shared_.limits.wait && ticket_ && shared_.pool.cancel(ticket_)) {
                return fail(too_late(fmt::format("{} was not ready", inquiry_.model), shared_.limits.wait, "wait"));
            }
            return tell_waiting(now);
        case Stage::sending:
            if (now - moved_ > shared_.limits.send_stall) return fail(too_late("the engine did not take the request", shared_.limits.send_stall, "send_stall"));
            break;
        case Stage::head:
            if (now - moved_ > shared_.limits.first_byte) return fail(too_late("the engine did not answer", shared_.limits.first_byte, "first_byte"));
            break;
        case Stage::streaming:
        case Stage::collecting:
            if (out_.empty() && now - moved_ > shared_.limits.stall) return fail(too_late("the engine's answer did not go on", shared_.limits.stall, "stall"));
            break;
        case Stage::ended: return;
    }
    if (now - began_ > shared_.limits.stream_time) fail(too_late("the engine's answer did not end", shared_.limits.stream_time, "stream_time"));
}

}  // namespace torpor::gateway
