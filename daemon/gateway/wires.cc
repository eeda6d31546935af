#include "daemon/gateway/wires.hh"

#include "base/json.hh"

#include <array>

namespace torpor::gateway {

namespace {

// The vendors' own words for our kinds. Sources: OpenAI API reference "Error codes"; Anthropic API
// reference "Errors".
std::string_view openai_type(Kind kind) {
    switch (kind) {
        case Kind::unauthorized: return "authentication_error";
        case Kind::refused: return "permission_error";
        case Kind::busy: return "rate_limit_error";
        case Kind::invalid:
        case Kind::not_found:
        case Kind::wrong_method:
        case Kind::conflict:
        case Kind::too_large: return "invalid_request_error";
        default: return "server_error";
    }
}

std::string_view anthropic_type(Kind kind) {
    switch (kind) {
        case Kind::unauthorized: return "authentication_error";
        case Kind::refused: return "permission_error";
        case Kind::not_found: return "not_found_error";
        case Kind::busy: return "rate_limit_error";
        case Kind::invalid:
        case Kind::wrong_method:
        case Kind::conflict: return "invalid_request_error";
        case Kind::too_large: return "request_too_large";
        case Kind::timeout: return "timeout_error";
        case Kind::unavailable: return "overloaded_error";
        default: return "api_error";
    }
}

std::string openai_event(const Error& error) {
    return "data: " + openai_error(error) + "\n\n";
}

std::string responses_event(const Error& error) {
    JsonWriter json;
    json.begin_object()
        .member("type", "error")
        .member("code", row_of(error.kind).name)
        .member("message", error.text())
        .key("param")
        .null()
        .end_object();
    return "event: error\ndata: " + json.text() + "\n\n";
}

std::string anthropic_event(const Error& error) {
    return "event: error\ndata: " + anthropic_error(error) + "\n\n";
}

std::string comment(std::string_view text) {
    return fmt::format(": {}\n\n", text);
}

std::string anthropic_ping(std::string_view text) {
    return fmt::format(": {}\nevent: ping\ndata: {{\"type\":\"ping\"}}\n\n", text);
}

constexpr std::array rows{
    WireRow{gpu::Wire::openai_chat, "chat", "/v1/chat/completions", true, true, true, openai_error, openai_event, comment},
    WireRow{gpu::Wire::openai_completions, "completions", "/v1/completions", true, true, true, openai_error, openai_event, comment},
    WireRow{gpu::Wire::openai_responses, "responses", "/v1/responses", false, true, true, openai_error, responses_event, comment},
    WireRow{gpu::Wire::openai_embeddings, "embeddings", "/v1/embeddings", false, false, false, openai_error, openai_event, comment},
    WireRow{gpu::Wire::anthropic_messages, "messages", "/v1/messages", false, false, true, anthropic_error, anthropic_event, anthropic_ping},
    WireRow{gpu::Wire::anthropic_messages, "count_tokens", "/v1/messages/count_tokens", false, false, false, anthropic_error, anthropic_event, anthropic_ping},
};

}  // namespace

std::string openai_error(const Error& error) {
    JsonWriter json;
    json.begin_object()
        .key("error")
        .begin_object()
        .member("message", error.text())
        .member("type", openai_type(error.kind))
        .key("param")
        .null()
        .member("code", row_of(error.kind).name)
        .end_object()
        .end_object();
    return json.take();
}

std::string anthropic_error(const Error& error) {
    JsonWriter json;
    json.begin_object()
        .member("type", "error")
        .key("error")
        .begin_object()
        .member("type", anthropic_type(error.kind))
        .member("message", error.text())
        .end_object()
        .end_object();
    return json.take();
}

const WireRow* find_wire(std::string_view path) {
    for (const WireRow& row : rows) {
        if (row.path == path) return &row;
    }
    return nullptr;
}

}  // namespace torpor::gateway
