// The OpenAI Responses API, without state on the provider's side: `store` is false, and reasoning comes encrypted and goes back.
// Source: https://platform.openai.com/docs/api-reference/responses and /docs/guides/reasoning ("Encrypted reasoning items").
#include "base/base64.hh"
#include "base/json.hh"
#include "daemon/llm/building.hh"
#include "daemon/llm/reading.hh"
#include "daemon/llm/wire.hh"

#include <map>

namespace torpor::llm {

namespace {

constexpr std::string_view name = "openai-responses";

// Others refuse to be asked for their reasoning.
bool reasons(std::string_view model) {
    return model.starts_with("gpt-5") || model.starts_with("codex") || (model.size() > 1 && model[0] == 'o' && model[1] >= '1' && model[1] <= '9');
}

void write_user(JsonWriter& json, const Message& message) {
    bool has_more = false;
    for (const Block& block : message.blocks) {
        if (block.kind == Block::Kind::tool_result) {
            json.begin_object().member("type", "function_call_output").member("call_id", block.call).member("output", block.text).end_object();
        } else {
            has_more = true;
        }
    }
    if (!has_more) return;
    json.begin_object().member("role", "user").key("content").begin_array();
    for (const Block& block : message.blocks) {
        if (block.kind == Block::Kind::text) json.begin_object().member("type", "input_text").member("text", block.text).end_object();
        if (block.kind == Block::Kind::image) {
            json.begin_object().member("type", "input_image");
            json.member("image_url", fmt::format("data:{};base64,{}", block.media_type, to_base64(block.bytes))).end_object();
        }
    }
    json.end_array().end_object();
}

void write_assistant(JsonWriter& json, const Message& message) {
    for (const Block& block : message.blocks) {
        if (block.kind == Block::Kind::reasoning && block.wire == name) json.raw(block.opaque);  // the whole item, as it came
        if (block.kind == Block::Kind::text && !block.text.empty()) {
            json.begin_object().member("type", "message").member("role", "assistant").key("content").begin_array();
            json.begin_object().member("type", "output_text").member("text", block.text).end_object().end_array().end_object();
        }
        if (block.kind == Block::Kind::tool_call) {
            json.begin_object().member("type", "function_call").member("call_id", block.call).member("name", block.tool);
            json.member("arguments", block.input.empty() ? "{}" : block.input).end_object();
        }
    }
}

std::string write(const Request& request, const ModelFacts&) {
    JsonWriter json;
    json.begin_object().member("model", request.model).member("stream", true).member("store", false);
    if (!request.system.empty()) json.member("instructions", request.system);
    if (request.output_tokens_max > 0) json.member("max_output_tokens", request.output_tokens_max);
    if (request.temperature) json.member("temperature", *request.temperature);
    if (!request.session.empty()) json.member("prompt_cache_key", request.session);
    if (reasons(request.model)) json.key("include").begin_array().value("reasoning.encrypted_content").end_array();
    if (!request.tools.empty()) {
        json.key("tools").begin_array();
        for (const ToolSpec& tool : request.tools) {
            json.begin_object().member("type", "function").member("name", tool.name).member("description", tool.description);
            json.member("strict", false).key("parameters").raw(tool.schema).end_object();
        }
        json.end_array();
    }
    if (!request.must_call.empty()) json.key("tool_choice").begin_object().member("type", "function").member("name", request.must_call).end_object();
    if (!request.schema.empty()) {
        json.key("text").begin_object().key("format").begin_object().member("type", "json_schema").member("name", "answer").member("strict", true);
        json.key("schema").raw(request.schema).end_object().end_object();
    }
    json.key("input").begin_array();
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

class ResponsesDecoder final : public Decoder {
  public:
    explicit ResponsesDecoder(Listener& listener) : answer_(listener, name) {}

    Result<void> take(std::string_view, std::string_view data) override {
        if (data == "[DONE]") return {};  // of some that speak it
        Json event;
        if (parser_.parse(data.data(), data.size()).get(event)) return fail(Kind::engine, "the answer's stream has an event that is no JSON");
        const std::string_view type = text_at(event, "type");
        if (type == "response.output_item.added") return open(event);
        if (type == "response.output_item.done") return close(event);
        if (type == "response.output_text.delta" || type == "response.function_call_arguments.delta" || type == "response.reasoning_summary_text.delta" ||
            type == "response.reasoning_text.delta") {
            return add(event);
        }
        if (type == "response.reasoning_summary_part.added") return part(event);
        if (type == "response.refusal.delta") {
            is_refusal_ = true;
            return add(event);
        }
        if (type == "response.completed" || type == "response.incomplete") {
            end(event);
            return {};
        }
        if (type == "response.failed" || type == "error") return refuse(event);
        return {};
    }

    Result<Answer> finish() override {
        if (!is_whole_) return fail(Kind::engine, "the answer broke off in the middle");
        if (answer_.stop == Stop::end && answer_.has_calls()) answer_.stop = Stop::tool_calls;
        return answer_.take();
    }

  private:
    Result<void> open(Json event) {
        Json item;
        if (!object_at(event, "item", item)) return {};
        const std::string_view type = text_at(item, "type");
        if (type != "message" && type != "function_call" && type != "reasoning") return {};
        auto place = answer_.open(type == "message" ? Block::Kind::text : type == "reasoning" ? Block::Kind::reasoning : Block::Kind::tool_call);
        if (!place) return Failure(place.error());
        places_[count_at(event, "output_index")] = *place;
        answer_.at(*place).call = text_at(item, "call_id");
        answer_.at(*place).tool = text_at(item, "name");
        return {};
    }

    Result<void> add(Json event) {
        const auto found = places_.find(count_at(event, "output_index"));
        if (found == places_.end()) return {};
        return answer_.add(found->second, text_at(event, "delta"));
    }

    // A summary has several parts, each a paragraph.
    Result<void> part(Json event) {
        const auto found = places_.find(count_at(event, "output_index"));
        if (found == places_.end() || answer_.at(found->second).text.empty()) return {};
        return answer_.add(found->second, "\n\n");
    }

    Result<void> close(Json event) {
        Json item;
        const auto found = places_.find(count_at(event, "output_index"));
        if (found == places_.end() || !object_at(event, "item", item)) return {};
        Block& block = answer_.at(found->second);
        if (block.kind == Block::Kind::tool_call) {
            block.call = text_at(item, "call_id");
            block.tool = text_at(item, "name");
            if (block.input.empty()) {
                if (auto added = answer_.add(found->second, text_at(item, "arguments")); !added) return added;
            }
        } else if (block.kind == Block::Kind::reasoning) {
            block.opaque = simdjson::minify(item);
        } else if (block.text.empty()) {
            for (const Json content : list_at(item, "content")) {
                if (auto added = answer_.add(found->second, text_at(content, "text")); !added) return added;
            }
        }
        answer_.close(found->second);
        return {};
    }

    void end(Json event) {
        is_whole_ = true;
        Json response;
        if (!object_at(event, "response", response)) return;
        answer_.model = text_at(response, "model");
        if (is_refusal_) answer_.stop = Stop::refused;
        Json details, usage;
        if (object_at(response, "incomplete_details", details)) {
            answer_.stop = text_at(details, "reason") == "content_filter" ? Stop::refused : Stop::output_limit;
        }
        if (!object_at(response, "usage", usage)) return;
        Usage& sum = answer_.usage.emplace();
        sum.input_tokens = count_at(usage, "input_tokens");
        sum.output_tokens = count_at(usage, "output_tokens");
        if (object_at(usage, "input_tokens_details", details)) sum.cache_read_tokens = count_at(details, "cached_tokens");
    }

    static Result<void> refuse(Json event) {
        Json response = event;
        object_at(event, "response", response);
        Json error;
        std::string_view code;
        if (object_at(response, "error", error)) code = text_at(error, "code");
        const bool is_overloaded = code == "rate_limit_exceeded" || code == "server_is_overloaded";
        return fail(is_overloaded ? Kind::busy : Kind::engine, "it ended its answer with an error: {}", error_words(response));
    }

    simdjson::dom::parser parser_;
    Building answer_;
    std::map<uint64_t, size_t> places_;  // by output_index
    bool is_whole_ = false, is_refusal_ = false;
};

}  // namespace

const Wire openai_responses{name, "/responses", headers, write,
                            [](Listener& listener) -> std::unique_ptr<Decoder> { return std::make_unique<ResponsesDecoder>(listener); }};

}  // namespace torpor::llm
