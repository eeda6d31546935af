#include "base/http/protocol.hh"

#include "base/http/server.hh"

#include <strings.h>

namespace torpor::http {

// What is known of the request that a thread serves.
struct Protocol::Serving {
    SocketStream& stream;
    Framing framing;
    bool is_admitted = false;
    bool has_unread = false;  // (part of) its body
    bool has_failed = false;
};

namespace {

thread_local void* serving_here = nullptr;  // Protocol::Serving, which is private

constexpr std::string_view our_mistake =
    R"({"error":{"kind":"internal","message":"this is a mistake in torpord; its log may tell more"}})";

bool is_compressed(const Request& request) {
    const std::string coding = request.get_header_value("Content-Encoding");
    return !coding.empty() && ::strcasecmp(coding.c_str(), "identity") != 0;
}

}  // namespace

Protocol::Protocol(Hooks hooks, const Limits& limits, BodyReader::TakeSlot take_slot)
    : hooks_(std::move(hooks)), limits_(limits), take_slot_(std::move(take_slot)), body_bytes_(limits.bodies_in_flight_bytes) {
    svr_sock_ = 0;  // it takes a missing listening socket for a shutdown and would cut streams; any number will do
    set_keep_alive_timeout(std::chrono::duration_cast<std::chrono::seconds>(limits.idle_time).count());
    set_keep_alive_max_count(1'000'000);  // there is no limit; this is what it says in its Keep-Alive header
    // Who is refused is not asked for the body first.
    set_expect_100_continue_handler([this](const Request& request, Response& response) {
        return admit(request, response) ? static_cast<int>(httplib::StatusCode::Continue_100) : response.status;
    });
    set_pre_routing_handler([this](const Request& request, Response& response) {
        if (static_cast<Serving*>(serving_here)->is_admitted || admit(request, response)) answer(request, response);
        return HandlerResponse::Handled;
    });
    set_error_handler([this](const Request& request, Response& response) {
        static_cast<Serving*>(serving_here)->has_failed = true;
        if (response.body.empty()) explain(request, response, {response.status, {Kind::invalid, "the request is not well-formed HTTP", {}}});
        return HandlerResponse::Handled;  // which makes it count the body's length
    });
}

// What the head alone decides. False: `response` is the answer.
bool Protocol::admit(const Request& request, Response& response) {
    Serving& serving = *static_cast<Serving*>(serving_here);
    serving.is_admitted = true;
    if (!hooks_.admit(request, response)) {
        if (!serving.framing.has_body()) return true;
        if (serving.framing.bytes > limits_.body_bytes) {
            const std::string words = fmt::format("the body is larger than {} bytes", limits_.body_bytes);
            explain(request, response, {413, {Kind::too_large, words, {}, "body_bytes"}});
        } else if (is_compressed(request)) {
            explain(request, response, {415, {Kind::invalid, "bodies must come uncompressed (no Content-Encoding)", {}}});
        } else {
            return true;
        }
    }
    serving.has_unread = serving.framing.has_body();
    return false;
}

void Protocol::answer(const Request& request, Response& response) try {
    Serving& serving = *static_cast<Serving*>(serving_here);
    Body body{{}, ByteShare(body_bytes_)};
    if (auto refusal = BodyReader(serving.stream, limits_, take_slot_).read(serving.framing, body)) {
        serving.has_unread = true;
        return explain(request, response, *refusal);
    }
    hooks_.respond(request, std::move(body), response);
} catch (const std::exception&) {
    response.status = 500;
    response.set_content(std::string(our_mistake), "application/json");
}

void Protocol::explain(const Request& request, Response& response, const Refusal& refusal) {
    hooks_.explain(request, response, refusal.error);
    response.status = refusal.status;
}

Protocol::Served Protocol::serve_one(SocketStream& stream) {
    const std::string_view bytes = stream.buffered();
    auto framing = check_head(bytes.substr(0, bytes.find("\r\n\r\n") + 4));
    if (!framing) return refuse(stream, framing.error());
    Serving serving{stream, *framing};
    serving_here = &serving;
    bool closes = false;
    const bool is_sent = process_request(
        stream, {}, 0, {}, 0, false, closes,
        [](Request& request) {
            request.body_consumed_ = true;  // by us
            request.ranges.clear();         // nothing here is worth a part of it
        },
        nullptr);
    serving_here = nullptr;
    return {!is_sent || closes || serving.has_failed, serving.has_unread};
}

Protocol::Served Protocol::refuse(SocketStream& stream, const Refusal& refusal) {
    Request request;
    request.path = path_in(stream.buffered());
    Response response;
    explain(request, response, refusal);
    std::string answer = fmt::format("HTTP/1.1 {} {}\r\n", refusal.status, httplib::status_message(refusal.status));
    for (const auto& [name, value] : response.headers) answer += fmt::format("{}: {}\r\n", name, value);
    answer += fmt::format("Content-Length: {}\r\nConnection: close\r\n\r\n{}", response.body.size(), response.body);
    (void)stream.write(answer.data(), answer.size());
    return {true, true};
}

}  // namespace torpor::http
