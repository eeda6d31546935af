#include "daemon/api/first_answer.hh"

#include "base/json.hh"
#include "base/text.hh"
#include "daemon/gateway/request_scan.hh"
#include "daemon/gateway/response_parser.hh"
#include "gpu/engine.hh"
#include "gpu/limits.hh"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>

namespace torpor::api {

namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t words_max = 1000;  // of what an engine says instead of answering

struct Question {
    gpu::Wire wire;
    std::string_view path;
    std::string_view rest;  // behind the model's name
};

constexpr std::array<Question, 5> questions{{
    {gpu::Wire::openai_chat, "/v1/chat/completions", R"("max_tokens":16,"messages":[{"role":"user","content":"Hi"}])"},
    {gpu::Wire::openai_completions, "/v1/completions", R"("max_tokens":16,"prompt":"Hi")"},
    {gpu::Wire::openai_responses, "/v1/responses", R"("max_output_tokens":16,"input":"Hi")"},
    {gpu::Wire::anthropic_messages, "/v1/messages", R"("max_tokens":16,"messages":[{"role":"user","content":"Hi"}])"},
    {gpu::Wire::openai_embeddings, "/v1/embeddings", R"("input":"Hi")"},
}};

// What the gateway would send for this body.
std::string as_sent(const gpu::Model& model, gpu::Wire wire, std::string body) {
    const gpu::AdapterSupport& support = gpu::find_engine(model.engine)->adapters;
    const bool can_choose = std::ranges::find(support.wires, wire) != support.wires.end();
    if (!model.adapters.empty() && can_choose && support.request_members != nullptr) {
        gateway::add_members(body, support.request_members(model, nullptr));
    }
    return body;
}

// Waits until the worker's socket can be read (or written); fails with `cancelled` or `timeout`.
Result<void> wait_for(int worker, short events, int gone_fd, Clock::time_point end) {
    for (;;) {
        const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(end - Clock::now()).count();
        if (left <= 0) return fail(Kind::timeout, "the engine did not answer within {}", format_duration(gpu::wait_max));
        pollfd waits[2] = {{worker, events, 0}, {gone_fd, POLLRDHUP, 0}};
        const int count = ::poll(waits, 2, static_cast<int>(left));
        if (count < 0 && errno != EINTR) return fail_errno(Kind::internal, "cannot wait for the engine");
        if (count > 0 && waits[1].revents != 0) return fail(Kind::cancelled, "the client went away");
        if (count > 0) return {};
    }
}

Result<void> send_all(int worker, std::string_view bytes, int gone_fd, Clock::time_point end) {
    while (!bytes.empty()) {
        if (auto writable = wait_for(worker, POLLOUT, gone_fd, end); !writable) return writable;
        const ssize_t count = ::send(worker, bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
        if (count < 0 && errno != EAGAIN && errno != EINTR) return fail_errno(Kind::engine, "the engine's connection broke");
        if (count > 0) bytes.remove_prefix(static_cast<size_t>(count));
    }
    return {};
}

// Empty if the answer is a 2xx, else what the engine said.
Result<std::string> ask(const gpu::Lease& lease, std::string_view path, const std::string& body, int gone_fd) {
    const auto end = Clock::now() + gpu::wait_max;
    bool reused = false;
    auto worker = lease.connections().take(reused);
    if (!worker) return Failure(worker.error());
    const std::string request = fmt::format("POST {} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                                            "Connection: close\r\nContent-Length: {}\r\n\r\n{}", path, body.size(), body);
    if (auto sent = send_all(worker->get(), request, gone_fd, end); !sent) return Failure(sent.error());
    gateway::ResponseParser parser;
    std::string said;
    std::array<char, 16 * 1024> piece;
    while (!parser.is_complete()) {
        if (auto readable = wait_for(worker->get(), POLLIN, gone_fd, end); !readable) return Failure(readable.error());
        const ssize_t count = ::recv(worker->get(), piece.data(), piece.size(), MSG_DONTWAIT);
        if (count < 0 && (errno == EAGAIN || errno == EINTR)) continue;
        if (count < 0) return fail_errno(Kind::engine, "the engine's connection broke");
        auto taken = count > 0 ? parser.feed({piece.data(), static_cast<size_t>(count)}, said) : parser.finish();
        if (!taken) return Failure(taken.error());
        if (count == 0) break;
        if (said.size() > words_max) said.resize(words_max);
    }
    if (parser.status() / 100 == 2) return std::string();
    return fmt::format("status {}: {}", parser.status(), said);
}

}  // namespace

Result<FirstAnswer> ask_first(const gpu::Lease& lease, const gpu::Model& model, int gone_fd) {
    const auto wires = gpu::wires_of(model);
    std::string name, refusal;
    append_json_string(name, model.name);
    for (const Question& question : questions) {
        if (std::ranges::find(wires, question.wire) == wires.end()) continue;
        const auto start = Clock::now();
        std::string body = fmt::format(R"({{"model":{},{}}})", name, question.rest);
        auto refused = ask(lease, question.path, as_sent(model, question.wire, body), gone_fd);
        if (!refused) return Failure(refused.error());
        if (refused->empty()) {
            return FirstAnswer{question.path, std::move(body), std::chrono::duration<double, std::milli>(Clock::now() - start).count()};
        }
        if (refusal.empty()) refusal = std::move(*refused);
    }
    return Failure(Error{Kind::engine, fmt::format("{} started, but did not answer a first question", model.name), refusal});
}

}  // namespace torpor::api
