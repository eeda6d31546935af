// The OpenAI Chat Completions API, as its many speakers have it.
// Source: https://platform.openai.com/docs/api-reference/chat. `reasoning_content` is DeepSeek's, llama-server's and vLLM's,
// `reasoning` and `reasoning_details` are OpenRouter's (https://openrouter.ai/docs/use-cases/reasoning-tokens).
#include "base/base64.hh"
#include "base/json.hh"
#include "daemon/llm/building.hh"
#include "daemon/llm/limits.hh"
#include "daemon/llm/reading.hh"
#include "daemon/llm/wire.hh"

#include <map>

namespace torpor::llm {

namespace {

constexpr std::string_view name = "openai-chat";

std::string data_url(const Block& image) {
    return fmt::format("data:{};base64,{}", image.media_type, to_base64(image.bytes));
}

// Results first, each a message of its own; then what the user said.
void write_user(JsonWriter& json, const Message& message) {
    bool has_more = false, has_images = false;
    for (const Block& block : message.blocks) {
        if (block.kind == Block::Kind::tool_result) {
            json.begin_object().member("role", "tool").member("tool_call_id", block.call).member("content", block.text).end_object();
        } else {
            has_more = true;
            has_images |= block.kind == Block::Kind::image;
        }
    }
    if (!has_more) return;
    json.begin_object().member("role", "user").key("content");
    if (!has_images) {  // a plain text is what all of them take
        std::string text;
        for (const Block& block : message.blocks) {
            if (block.kind != Block::Kind::text) continue;
            if (!text.empty()) text += "\n\n";
            text += block.text;
        }
        json.value(text).end_object();
        return;
    }
    json.begin_array();
    for (const Block& block : message.blocks) {
        if (block.kind == Block::Kind::text) json.begin_object().member("type", "text").member("text", block.text).end_object();
        if (block.kind == Block::Kind::image) {
            json.begin_object().member("type", "image_url").key("image_url").begin_object().member("url", data_url(block)).end_object().end_object();
        }
    }
    json.end_array().end_object();
}

void write_reasoning(JsonWriter& json, const Block& block) {
    simdjson::dom::parser parser;
    Json opaque;
    if (block.wire != name || parser.parse(block.opaque).get(opaque)) return;
    const std::string_view field = text_at(opaque, "field");
    if (field == "reasoning_content" || field == "reasoning") json.member(field, block.text);
    simdjson::dom::array details;
    if (!opaque["details"].get(details)) json.key("reasoning_details").raw(simdjson::minify(details));
}

void write_assistant(JsonWriter& json, const Message& message) {
    json.begin_object().member("role", "assistant");
    std::string text;
    bool has_calls = false, has_reasoning = false;
    for (const Block& block : message.blocks) {
        if (block.kind == Block::Kind::text) text += block.text;
        has_calls |= block.kind == Block::Kind::tool_call;
        if (block.kind == Block::Kind::reasoning && !has_reasoning) {
            write_reasoning(json, block);
            has_reasoning = true;
        }
    }
    json.key("content");
    if (text.empty() && has_calls) {
        json.null();
    } else {
        json.value(text);
    }
    if (has_calls) {
        json.key("tool_calls").begin_array();
        for (const Block& block : message.blocks) {
            if (block.kind != Block::Kind::tool_call) continue;
            json.begin_object().member("id", block.call).member("type", "function").key("function").begin_object();
            json.member("name", block.tool).member("arguments", block.input.empty() ? "{}" : block.input).end_object().end_object();
        }
        json.end_array();
    }
    json.end_object();
}

std::string write(const Request& request, const ModelFacts&) {
    JsonWriter json;
    json.begin_object().member("model", request.model).member("stream", true);
    json.key("stream_options").begin_object().member("include_usage", true).end_object();
    if (request.output_tokens_max > 0) json.member("max_tokens", request.output_tokens_max);
    if (request.temperature) json.member("temperature", *request.temperature);
    if (!request.tools.empty()) {
        json.key("tools").begin_array();
        for (const ToolSpec& tool : request.tools) {
            json.begin_object().member("type", "function").key("function").begin_object().member("name", tool.name);
            json.member("description", tool.description).key("parameters").raw(tool.schema).end_object().end_object();
        }
        json.end_array();
    }
    if (!request.must_call.empty()) {
        json.key("tool_choice").begin_object().member("type", "function").key("function").begin_object().member("name", request.must_call);
        json.end_object().end_object();
    }
    if (!request.schema.empty()) {
        json.key("response_format").begin_object().member("type", "json_schema").key("json_schema").begin_object().member("name", "answer");
        json.member("strict", true).key("schema").raw(request.schema).end_object().end_object();
    }
    json.key("messages").begin_array();
    if (!request.system.empty()) json.begin_object().member("role", "system").member("content", request.system).end_object();
    for (const Message& message : request.messages) {
        if (message.role == Message::Role::user) {
            write_user(json, message);
        } else {
            write_assistant(json, message);
        }
    }
    return json.end_array().end_object().take();
}

std::vector<std::string> headers(const std::string& key) {
    if (key.empty()) return {};
    return {"Authorization: Bearer " + key};
}

class ChatDecoder final : public Decoder {
  public:
    explicit ChatDecoder(Listener& listener) : answer_(listener, name) {}

    Result<void> take(std::string_view, std::string_view data) override {
        if (data == "[DONE]") {
            is_done_ = true;
            return {};
        }
        Json event;
        if (parser_.parse(data.data(), data.size()).get(event)) return fail(Kind::engine, "the answer's stream has an event that is no JSON");
        Json error;
        if (!event["error"].get(error) && !error.is_null()) return fail(Kind::engine, "it ended its answer with an error: {}", error_words(event));
        if (answer_.model.empty()) answer_.model = text_at(event, "model");
        Json usage;
        if (object_at(event, "usage", usage)) count(usage);
        for (const Json choice : list_at(event, "choices")) {
            Json delta;
            if (object_at(choice, "delta", delta)) {
                if (auto taken = take_delta(delta); !taken) return taken;
            }
            if (const std::string_view reason = text_at(choice, "finish_reason"); !reason.empty()) end(reason);
            break;  // more than one is never asked for
        }
        return {};
    }

    Result<Answer> finish() override {
        // Some leave out the one, some the other.
        if (!has_ended_ && !(is_done_ && answer_.count() > 0)) return fail(Kind::engine, "the answer broke off in the middle");
        keep_details();
        if (answer_.stop == Stop::end && answer_.has_calls()) answer_.stop = Stop::tool_calls;
        return answer_.take();
    }

  private:
    Result<void> take_delta(Json delta) {
        for (const std::string_view field : {"reasoning_content", "reasoning"}) {
            const std::string_view piece = text_at(delta, field);
            if (piece.empty()) continue;
            if (auto added = add(Block::Kind::reasoning, piece); !added) return added;
            field_ = field;
            break;
        }
        for (const Json detail : list_at(delta, "reasoning_details")) {
            if (!details_.empty()) details_ += ',';
            details_ += simdjson::minify(detail);
            if (details_.size() > answer_bytes_max) return fail(Kind::engine, "the answer is larger than {} bytes", answer_bytes_max);
        }
        if (const std::string_view piece = text_at(delta, "content"); !piece.empty()) {
            if (auto added = add(Block::Kind::text, piece); !added) return added;
        }
        if (const std::string_view piece = text_at(delta, "refusal"); !piece.empty()) {
            is_refusal_ = true;
            if (auto added = add(Block::Kind::text, piece); !added) return added;
        }
        for (const Json call : list_at(delta, "tool_calls")) {
            if (auto added = take_call(call); !added) return added;
        }
        return {};
    }

    // Goes on with the block under way, or begins one.
    Result<void> add(Block::Kind kind, std::string_view piece) {
        if (!last_ || answer_.at(*last_).kind != kind || !answer_.is_open(*last_)) {
            leave_last();
            auto opened = answer_.open(kind);
            if (!opened) return Failure(opened.error());
            last_ = *opened;
        }
        return answer_.add(*last_, piece);
    }

    void leave_last() {
        if (!last_) return;
        if (answer_.at(*last_).kind == Block::Kind::reasoning) keep_details();
        answer_.close(*last_);
        last_.reset();
    }

    // What must come back with the reasoning, if the model is to go on from it.
    void keep_details() {
        if (!last_ || answer_.at(*last_).kind != Block::Kind::reasoning) return;
        std::string& opaque = answer_.at(*last_).opaque;
        opaque = fmt::format(R"({{"field":"{}")", field_);
        if (!details_.empty()) opaque += fmt::format(R"(,"details":[{}])", details_);
        opaque += '}';
        details_.clear();
    }

    Result<void> take_call(Json call) {
        const uint64_t index = count_at(call, "index");
        Json function;
        const bool has_function = object_at(call, "function", function);
        const std::string_view id = text_at(call, "id");
        // Some give all calls index 0, each with an id of its own.
        const auto known = calls_.find(index);
        const bool is_new = known == calls_.end() || (!id.empty() && !answer_.at(known->second).call.empty() && answer_.at(known->second).call != id);
        if (is_new) {
            leave_last();
            auto opened = answer_.open(Block::Kind::tool_call);
            if (!opened) return Failure(opened.error());
            calls_[index] = *opened;
        }
        const size_t place = calls_[index];
        Block& block = answer_.at(place);
        if (!id.empty()) block.call = id;
        if (!has_function) return {};
        if (block.tool.empty()) block.tool = text_at(function, "name");
        return answer_.add(place, text_at(function, "arguments"));
    }

    void count(Json usage) {
        Usage& sum = answer_.usage.emplace();
        sum.input_tokens = count_at(usage, "prompt_tokens");
        sum.output_tokens = count_at(usage, "completion_tokens");
        Json details;
        if (object_at(usage, "prompt_tokens_details", details)) sum.cache_read_tokens = count_at(details, "cached_tokens");
        if (const uint64_t hit = count_at(usage, "prompt_cache_hit_tokens"); hit > 0) sum.cache_read_tokens = hit;  // DeepSeek
    }

    void end(std::string_view reason) {
        has_ended_ = true;
        answer_.stop = reason == "length" ? Stop::output_limit : reason == "content_filter" || is_refusal_ ? Stop::refused : Stop::end;
    }

    simdjson::dom::parser parser_;
    Building answer_;
    std::optional<size_t> last_;        // the block under way, unless it is a call
    std::map<uint64_t, size_t> calls_;  // by the provider's index
    std::string_view field_;            // a literal
    std::string details_;
    bool has_ended_ = false, is_done_ = false, is_refusal_ = false;
};

}  // namespace

const Wire openai_chat{name, "/chat/completions", headers, write,
                       [](Listener& listener) -> std::unique_ptr<Decoder> { return std::make_unique<ChatDecoder>(listener); }};

}  // namespace torpor::llm
