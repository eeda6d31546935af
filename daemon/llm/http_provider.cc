#include "daemon/llm/http_provider.hh"

#include "base/sse.hh"
#include "daemon/llm/limits.hh"
#include "daemon/llm/reading.hh"

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <random>

namespace torpor::llm {

namespace {

bool contains(std::string_view text, std::string_view part) {
    return text.find(part) != std::string_view::npos;
}

// How providers say that the conversation is longer than the model's window.
bool says_too_long(std::string_view words) {
    for (const std::string_view said : {"context length", "context_length", "context window", "context size", "maximum context", "prompt is too long", "exceed_context_size",
                                        "too many tokens", "input is too long", "exceeds the available context"}) {
        if (contains(words, said)) return true;
    }
    return false;
}

// What it says, on one line, without what is no text.
std::string shown(std::string_view words) {
    std::string line;
    for (const char c : words.substr(0, error_words_max)) line += static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? ' ' : c;
    return line;
}

// The error that a status and its body mean.
Error error_of(long status, std::string_view body) {
    simdjson::dom::parser parser;
    Json json;
    std::string_view words;
    if (!parser.parse(body.data(), body.size()).get(json)) words = error_words(json);
    const std::string said = words.empty() ? fmt::format("it answered {}", status) : shown(words);
    if (status == 401) return {Kind::unauthorized, "it does not take the key", said};
    if (status == 403) return {Kind::refused, "it refuses this", said};
    if (status == 413 || (status >= 400 && status < 500 && says_too_long(body))) return {Kind::too_large, "the conversation is longer than the model takes", said};
    if (status == 408 || status == 409 || status == 429 || status == 503 || status == 529) return {Kind::busy, status == 429 ? "it has had too many requests" : "it is overloaded", said};
    if (status >= 500) return {Kind::unavailable, "it failed", said};
    if (status >= 300 && status < 400) {
        return {Kind::invalid, "it sends the request elsewhere, and a key goes to no other host: set its base_url to where it really is", said};
    }
    return {Kind::invalid, "it does not take the request", said};
}

// Half of it is certain, the rest by chance, so that those who failed together do not come again together.
std::chrono::milliseconds wait_before(int retry) {
    static thread_local std::minstd_rand dice{std::random_device{}()};
    const auto most = std::min(retry_wait_max, retry_wait_first * (1 << std::min(retry, 10)));
    return most / 2 + std::chrono::milliseconds(std::uniform_int_distribution<int64_t>(0, most.count() / 2)(dice));
}

void sleep_until_stopped(std::chrono::milliseconds time, std::stop_token stop) {
    std::mutex mutex;
    std::condition_variable_any changed;
    std::unique_lock lock(mutex);
    changed.wait_for(lock, stop, time, [] { return false; });
}

}  // namespace

// One try: whether it may be followed by another.
struct HttpProvider::Try {
    HttpHead head = {};
    std::string error_body = {};
    bool was_heard = false;  // something of an answer came
};

Error HttpProvider::named(Error error) const {
    if (error.kind != Kind::cancelled) error.message = fmt::format("{}: {}", endpoint_.name, error.message);
    return error;
}

HttpRequest HttpProvider::request_to(std::string_view path, std::string body) const {
    HttpRequest http{endpoint_.base_url + std::string(path), endpoint_.unix_socket, wire_.headers(endpoint_.key), std::move(body)};
    http.headers.push_back("Content-Type: application/json");
    http.headers.push_back("User-Agent: torpor");
    for (const auto& [name, value] : endpoint_.headers) http.headers.push_back(name + ": " + value);
    return http;
}

Result<Answer> HttpProvider::ask_once(const std::string& body, Listener& listener, std::stop_token stop, Try& one) const {
    HttpRequest http = request_to(wire_.path, body);
    http.headers.push_back("Accept: text/event-stream");
    const auto decoder = wire_.decode(listener);
    SseParser parser(stream_event_bytes_max);
    const auto on_head = [&](const HttpHead& head) -> Result<void> {
        one.head = head;
        if (head.status != 200 || head.content_type.starts_with("text/event-stream")) return {};
        return fail(Kind::engine, "it answered with {} instead of a stream of events; is its base_url right?",
                    head.content_type.empty() ? "something" : shown(head.content_type));
    };
    const auto on_bytes = [&](std::string_view bytes) -> Result<void> {
        if (one.head.status != 200) {
            one.error_body.append(bytes.substr(0, error_body_bytes_max - std::min(error_body_bytes_max, one.error_body.size())));
            return {};
        }
        Result<void> taken;
        const auto fed = parser.feed(bytes, [&](std::string_view event, std::string_view data) {
            one.was_heard = true;
            if (taken) taken = decoder->take(event, data);
        });
        if (!fed) return fail(Kind::engine, "an event of the answer's stream is larger than {} bytes", stream_event_bytes_max);
        return taken;
    };
    if (auto done = client_.post(http, on_head, on_bytes, stop); !done) return Failure(done.error());
    if (one.head.status != 200) return Failure(error_of(one.head.status, one.error_body));
    return decoder->finish();
}

Result<Answer> HttpProvider::ask(const Request& request, Listener& listener, std::stop_token stop) {
    const std::string body = wire_.write(request, facts_);
    for (int retry = 0;; ++retry) {
        Try one;
        auto answer = ask_once(body, listener, stop, one);
        if (answer) return answer;
        const Error error = named(answer.error());
        const bool may_pass = error.kind == Kind::busy || error.kind == Kind::unavailable;
        if (one.was_heard || !may_pass || retry >= retries_max || stop.stop_requested()) return Failure(error);
        const auto wait = one.head.retry_after.value_or(wait_before(retry));
        if (wait > retry_after_max) return Failure(error);
        listener.on_retry(error, wait);
        sleep_until_stopped(wait, stop);
        if (stop.stop_requested()) return fail(Kind::cancelled, "it was interrupted");
    }
}

Result<Provider::Count> HttpProvider::count(const Request& request, std::stop_token stop) {
    // The local models' engines count on Anthropic's wire whichever they are asked on.
    const Wire& wire = endpoint_.unix_socket.empty() ? wire_ : anthropic_messages;
    if (wire.count_path.empty()) return Count{estimate_tokens(request), false};
    std::string answer;
    long status = 0;
    auto done = client_.post(
        request_to(wire.count_path, wire.write_count(request)),
        [&](const HttpHead& head) -> Result<void> {
            status = head.status;
            return {};
        },
        [&](std::string_view bytes) -> Result<void> {
            answer.append(bytes.substr(0, error_body_bytes_max - std::min(error_body_bytes_max, answer.size())));
            return {};
        },
        stop);
    if (!done && done.error().kind == Kind::cancelled) return Failure(done.error());
    simdjson::dom::parser parser;
    Json json;
    if (!done || status != 200 || parser.parse(answer).get(json) || count_at(json, "input_tokens") == 0) return Count{estimate_tokens(request), false};
    return Count{count_at(json, "input_tokens"), true};
}

uint64_t estimate_tokens(const Request& request) {
    constexpr uint64_t bytes_a_token = 3, image_tokens = 1'500;
    uint64_t bytes = request.system.size(), images = 0;
    for (const Message& message : request.messages) {
        for (const Block& block : message.blocks) {
            images += block.kind == Block::Kind::image;
            bytes += block.text.size() + block.input.size();
        }
    }
    for (const ToolSpec& tool : request.tools) bytes += tool.name.size() + tool.description.size() + tool.schema.size();
    return bytes / bytes_a_token + images * image_tokens;
}

}  // namespace torpor::llm
