#include "base/http/protocol.hh"

#include "base/http/server.hh"
#include "base/limits.hh"

namespace torpor::http {

Protocol::Protocol(Hooks hooks, const Limits& limits) : hooks_(std::move(hooks)), body_time_(limits.body_time), body_bytes_(limits.bodies_in_flight_bytes) {
    svr_sock_ = 0;  // it takes a missing listening socket for a shutdown and would cut streams; any number will do
    set_payload_max_length(limits.body_bytes);
    set_keep_alive_timeout(std::chrono::duration_cast<std::chrono::seconds>(limits.idle_time).count());
    set_keep_alive_max_count(1'000'000);  // there is no limit; this is what it says in its Keep-Alive header
    set_exception_handler([](const Request&, Response& response, std::exception_ptr) {
        response.status = 500;
        response.set_content("{\"error\":{\"kind\":\"internal\",\"message\":\"this is a mistake in torpord; its log "
                             "may tell more\"}}",
                             "application/json");
    });
    set_pre_routing_handler([this](const Request& request, Response& response) {
        const bool has_body = request.has_header("Content-Length") || request.has_header("Transfer-Encoding");
        if (!has_body) current_connection()->stream.expect_no_body();
        return hooks_.admit(request, response) ? HandlerResponse::Handled : HandlerResponse::Unhandled;
    });
    set_error_handler([this](const Request& request, Response& response) {
        if (response.body.empty()) hooks_.explain(request, response);
        return HandlerResponse::Unhandled;
    });
    const auto with_body = [this](const Request& request, Response& response, const httplib::ContentReader& read) {
        take_body(request, response, read);
    };
    // admit() has matched the path against the route table, which bounds its length.
    Get(".*", [this](const Request& request, Response& response) { hooks_.respond(request, {}, response); });
    Post(".*", with_body);
    Delete(".*", with_body);
}

void Protocol::take_body(const Request& request, Response& response, const httplib::ContentReader& read) {
    Body body{{}, ByteShare(body_bytes_)};
    bool over = false, late = false;
    const auto end = std::chrono::steady_clock::now() + body_time_;
    const bool is_whole = read([&](const char* bytes, size_t count) {
        over = !body.share.grow(count);
        late = std::chrono::steady_clock::now() > end;
        if (!over && !late) body.text.append(bytes, count);
        return !over && !late;
    });
    if (is_whole) return hooks_.respond(request, std::move(body), response);
    if (over) {
        response.status = 503;
        response.set_header("Retry-After", "1");
        response.set_header("Connection", "close");
    } else if (late || (response.status != 413 && current_connection()->stream.has_stalled())) {
        response.status = 408;  // cpp-httplib has it for a 400
    } else if (response.status == -1) {
        response.status = 400;
    }
}

}  // namespace torpor::http
