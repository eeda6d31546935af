// The Anthropic Messages API. Source: https://docs.claude.com/en/api/messages and /en/docs/build-with-claude/streaming.
#include "base/base64.hh"
#include "base/json.hh"
#include "daemon/llm/building.hh"
#include "daemon/llm/limits.hh"
#include "daemon/llm/reading.hh"
#include "daemon/llm/wire.hh"

#include <map>

namespace torpor::llm {

namespace {

constexpr std::string_view name = "anthropic-messages";

// What stands before it is cached; the marks may move from request to request, the cache looks back from them.
void write_cache_mark(JsonWriter& json) {
    json.key("cache_control").begin_object().member("type", "ephemeral").end_object();
}

void write_block(JsonWriter& json, const Block& block, bool is_marked) {
    json.begin_object();
    switch (block.kind) {
        case Block::Kind::text: json.member("type", "text").member("text", block.text); break;
        case Block::Kind::image:
            json.member("type", "image").key("source").begin_object().member("type", "base64").member("media_type", block.media_type);
            json.member("data", to_base64(block.bytes)).end_object();
            break;
        case Block::Kind::tool_call:
            json.member("type", "tool_use").member("id", block.call).member("name", block.tool).key("input").raw(block.input.empty() ? "{}" : block.input);
            break;
        case Block::Kind::tool_result:
            json.member("type", "tool_result").member("tool_use_id", block.call).member("content", block.text.empty() ? "(nothing)" : block.text);
            if (block.is_error) json.member("is_error", true);
            break;
        case Block::Kind::reasoning: {
            simdjson::dom::parser parser;
            Json opaque;
            if (parser.parse(block.opaque).get(opaque)) break;
            if (const std::string_view data = text_at(opaque, "data"); !data.empty()) {
                json.member("type", "redacted_thinking").member("data", data);
            } else {
                json.member("type", "thinking").member("thinking", block.text).member("signature", text_at(opaque, "signature"));
            }
            break;
        }
    }
    if (is_marked && block.kind != Block::Kind::reasoning) write_cache_mark(json);
    json.end_object();
}

bool is_sent(const Block& block) {
    if (block.kind == Block::Kind::text) return !block.text.empty();
    return block.kind != Block::Kind::reasoning || block.wire == name;
}

void write_messages(JsonWriter& json, const std::vector<Message>& messages) {
    json.key("messages").begin_array();
    for (size_t i = 0; i < messages.size(); ++i) {
        json.begin_object().member("role", messages[i].role == Message::Role::user ? "user" : "assistant").key("content").begin_array();
        const auto& blocks = messages[i].blocks;
        for (size_t j = 0; j < blocks.size(); ++j) {
            if (is_sent(blocks[j])) write_block(json, blocks[j], i + 1 == messages.size() && j + 1 == blocks.size());
        }
        json.end_array().end_object();
    }
    json.end_array();
}

// What a count and an answer are asked with alike.
void write_input(JsonWriter& json, const Request& request) {
    json.member("model", request.model);
    if (!request.tools.empty()) {
        json.key("tools").begin_array();
        for (const ToolSpec& tool : request.tools) {
            json.begin_object().member("name", tool.name).member("description", tool.description).key("input_schema").raw(tool.schema).end_object();
        }
        json.end_array();
    }
    if (!request.must_call.empty()) json.key("tool_choice").begin_object().member("type", "tool").member("name", request.must_call).end_object();
    if (!request.system.empty()) {
        json.key("system").begin_array().begin_object().member("type", "text").member("text", request.system);
        write_cache_mark(json);
        json.end_object().end_array();
    }
    write_messages(json, request.messages);
}

std::string write_count(const Request& request) {
    JsonWriter json;
    json.begin_object();
    write_input(json, request);
    return json.end_object().take();
}

std::string write(const Request& request, const ModelFacts& facts) {
    JsonWriter json;
    const uint64_t most = request.output_tokens_max > 0 ? request.output_tokens_max : facts.output_tokens_max > 0 ? facts.output_tokens_max : output_tokens_default;
    json.begin_object().member("max_tokens", most).member("stream", true);
    if (request.temperature) json.member("temperature", *request.temperature);
    if (!request.schema.empty()) {
        json.key("output_format").begin_object().member("type", "json_schema").key("schema").raw(request.schema).end_object();
    }
    write_input(json, request);
    return json.end_object().take();
}

std::vector<std::string> headers(const std::string& key) {
    std::vector<std::string> all{"anthropic-version: 2023-06-01", "anthropic-beta: structured-outputs-2025-11-13"};
    if (!key.empty()) all.push_back("x-api-key: " + key);
    return all;
}

class AnthropicDecoder final : public Decoder {
  public:
    explicit AnthropicDecoder(Listener& listener) : answer_(listener, name) {}

    Result<void> take(std::string_view, std::string_view data) override {
        Json event;
        if (parser_.parse(data.data(), data.size()).get(event)) return fail(Kind::engine, "the answer's stream has an event that is no JSON");
        const std::string_view type = text_at(event, "type");
        if (type == "message_start") return begin(event);
        if (type == "content_block_start") return open(event);
        if (type == "content_block_delta") return add(event);
        if (type == "content_block_stop") {
            if (const auto found = places_.find(count_at(event, "index")); found != places_.end()) answer_.close(found->second);
            return {};
        }
        if (type == "message_delta") {
            end(event);
            return {};
        }
        if (type == "message_stop") {
            is_whole_ = true;
            return {};
        }
        if (type == "error") return refuse(event);
        return {};  // "ping", and what is new
    }

    Result<Answer> finish() override {
        if (!is_whole_) return fail(Kind::engine, "the answer broke off in the middle");
        return answer_.take();
    }

  private:
    Result<void> begin(Json event) {
        Json message;
        if (!object_at(event, "message", message)) return {};
        answer_.model = text_at(message, "model");
        Json usage;
        if (object_at(message, "usage", usage)) count(usage);
        return {};
    }

    // Input is told at the begin, and by some again at the end; without those tokens that came from the cache.
    void count(Json usage) {
        Usage& sum = answer_.usage ? *answer_.usage : answer_.usage.emplace();
        if (const uint64_t read = count_at(usage, "cache_read_input_tokens"); read > 0) sum.cache_read_tokens = read;
        if (const uint64_t written = count_at(usage, "cache_creation_input_tokens"); written > 0) sum.cache_write_tokens = written;
        if (const uint64_t input = count_at(usage, "input_tokens"); input > 0) fresh_ = input;
        if (const uint64_t output = count_at(usage, "output_tokens"); output > 0) sum.output_tokens = output;
        sum.input_tokens = fresh_ + sum.cache_read_tokens + sum.cache_write_tokens;
    }

    Result<void> open(Json event) {
        Json block;
        if (!object_at(event, "content_block", block)) return {};
        const std::string_view type = text_at(block, "type");
        const bool is_reasoning = type == "thinking" || type == "redacted_thinking";
        if (!is_reasoning && type != "text" && type != "tool_use") return {};  // of the provider's own tools, which are not offered
        auto place = answer_.open(is_reasoning ? Block::Kind::reasoning : type == "text" ? Block::Kind::text : Block::Kind::tool_call);
        if (!place) return Failure(place.error());
        places_[count_at(event, "index")] = *place;
        Block& made = answer_.at(*place);
        made.call = text_at(block, "id");
        made.tool = text_at(block, "name");
        if (type == "redacted_thinking") {
            JsonWriter json;
            made.opaque = json.begin_object().member("data", text_at(block, "data")).end_object().take();
        }
        if (type == "thinking") signatures_[*place] = text_at(block, "signature");
        return answer_.add(*place, is_reasoning ? text_at(block, "thinking") : type == "text" ? text_at(block, "text") : std::string_view());
    }

    Result<void> add(Json event) {
        const auto found = places_.find(count_at(event, "index"));
        Json delta;
        if (found == places_.end() || !object_at(event, "delta", delta)) return {};
        const std::string_view type = text_at(delta, "type");
        if (type == "signature_delta") {
            std::string& signature = signatures_[found->second];
            signature += text_at(delta, "signature");
            JsonWriter json;
            answer_.at(found->second).opaque = json.begin_object().member("signature", signature).end_object().take();
            return {};
        }
        return answer_.add(found->second, text_at(delta, type == "text_delta" ? "text" : type == "thinking_delta" ? "thinking" : "partial_json"));
    }

    void end(Json event) {
        Json delta, usage;
        if (object_at(event, "usage", usage)) count(usage);
        if (!object_at(event, "delta", delta)) return;
        const std::string_view reason = text_at(delta, "stop_reason");
        answer_.stop = reason == "tool_use"                                                    ? Stop::tool_calls
                       : reason == "max_tokens" || reason == "model_context_window_exceeded" ? Stop::output_limit
                       : reason == "refusal"                                                 ? Stop::refused
                                                                                             : Stop::end;
    }

    static Result<void> refuse(Json event) {
        Json error;
        std::string_view type;
        if (object_at(event, "error", error)) type = text_at(error, "type");
        const bool is_overloaded = type == "overloaded_error" || type == "rate_limit_error";
        return fail(is_overloaded ? Kind::busy : Kind::engine, "it ended its answer with an error: {}", error_words(event));
    }

    simdjson::dom::parser parser_;
    Building answer_;
    std::map<uint64_t, size_t> places_;
    std::map<size_t, std::string> signatures_;
    uint64_t fresh_ = 0;
    bool is_whole_ = false;
};

}  // namespace

const Wire anthropic_messages{name, "/messages", headers, write,
                              [](Listener& listener) -> std::unique_ptr<Decoder> { return std::make_unique<AnthropicDecoder>(listener); },
                              "/messages/count_tokens", write_count};

}  // namespace torpor::llm
