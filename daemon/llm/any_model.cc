#include "daemon/llm/any_model.hh"

#include "base/json.hh"
#include "daemon/llm/reading.hh"

#include <algorithm>

namespace torpor::llm {

namespace {

constexpr uint64_t output_tokens_default_small = 1'024;  // such a model may repeat itself until it is stopped

// The required properties alone: small models take the others for something that must be filled in.
std::string small_schema(const ToolSpec& tool) {
    simdjson::dom::parser parser;
    Json schema, properties;
    JsonWriter json;
    json.begin_object().member("type", "object").key("properties").begin_object();
    std::vector<std::string_view> required;
    if (!parser.parse(tool.schema).get(schema) && object_at(schema, "properties", properties)) {
        for (const Json one : list_at(schema, "required")) {
            std::string_view name;
            Json property;
            if (one.get(name) || !object_at(properties, name, property)) continue;
            required.push_back(name);
            json.key(name).raw(simdjson::minify(property));
        }
    }
    json.end_object().key("required").begin_array();
    for (const std::string_view name : required) json.value(name);
    return json.end_array().member("additionalProperties", false).end_object().take();
}

std::string answer_schema(const Request& request) {
    JsonWriter json;
    json.begin_object().key("anyOf").begin_array();
    for (const ToolSpec& tool : request.tools) {
        json.begin_object().member("type", "object").key("properties").begin_object().key("tool").begin_object().member("const", tool.name).end_object();
        json.key("input").raw(small_schema(tool)).end_object();
        json.key("required").begin_array().value("tool").value("input").end_array().member("additionalProperties", false).end_object();
    }
    json.begin_object().member("type", "object").key("properties").begin_object().key("say");
    if (request.schema.empty()) {
        json.begin_object().member("type", "string").end_object();
    } else {
        json.raw(request.schema);
    }
    json.end_object().key("required").begin_array().value("say").end_array().member("additionalProperties", false).end_object();
    return json.end_array().end_object().take();
}

std::string first_sentence(std::string_view text) {
    return std::string(text.substr(0, std::min(text.find(". "), text.size())));
}

std::string offer(const Request& request) {
    std::string text = "Answer in JSON. To use a tool, answer {\"tool\": NAME, \"input\": {...}}; you are given what it says. To talk to the user, answer "
                       "{\"say\": TEXT}. The tools:\n";
    for (const ToolSpec& tool : request.tools) {
        std::string names;
        simdjson::dom::parser parser;
        Json schema;
        if (!parser.parse(tool.schema).get(schema)) {
            for (const Json one : list_at(schema, "required")) {
                std::string_view name;
                if (!one.get(name)) names += fmt::format("{}{}", names.empty() ? "" : ", ", name);
            }
        }
        text += fmt::format("- {}({}): {}\n", tool.name, names, first_sentence(tool.description));
    }
    return text;
}

Message as_text(const Message& message) {
    Message plain{message.role, {}};
    std::string text;
    for (const Block& block : message.blocks) {
        JsonWriter json;
        switch (block.kind) {
            case Block::Kind::text:
                if (message.role == Message::Role::assistant) {
                    text += json.begin_object().member("say", block.text).end_object().text();
                } else {
                    text += (text.empty() ? "" : "\n\n") + block.text;
                }
                break;
            case Block::Kind::tool_call:
                text += json.begin_object().member("tool", block.tool).key("input").raw(block.input.empty() ? "{}" : block.input).end_object().text();
                break;
            case Block::Kind::tool_result: text += fmt::format("{}The tool {}:\n{}", text.empty() ? "" : "\n\n", block.is_error ? "failed" : "says", block.text); break;
            case Block::Kind::image: plain.blocks.push_back(block); break;
            case Block::Kind::reasoning: break;
        }
    }
    Block block;
    block.text = std::move(text);
    plain.blocks.push_back(std::move(block));
    return plain;
}

// Hears the JSON text as it comes, and tells what of {"say": "..."} can be read already.
class Reader final : public Listener {
  public:
    explicit Reader(Listener& listener) : listener_(listener) {}

    void on_delta(size_t, Block::Kind kind, std::string_view piece) override {
        if (kind != Block::Kind::text) return;
        raw_ += piece;
        if (!begin_say()) return;
        std::string said;
        while (at_ < raw_.size() && !is_over_ && take_character(said)) {
        }
        if (said.empty()) return;
        listener_.on_delta(0, Block::Kind::text, said);
    }
    void on_block(size_t, const Block&) override {}
    void on_retry(const Error& why, std::chrono::milliseconds wait) override { listener_.on_retry(why, wait); }

    const std::string& raw() const { return raw_; }

  private:
    // Whether the text's first character has come. A `say` that is no string is told when it is whole.
    bool begin_say() {
        if (at_ > 0) return true;
        std::string_view rest = raw_;
        for (const std::string_view part : {"{", "\"say\"", ":", "\""}) {
            const size_t begin = rest.find_first_not_of(" \t\r\n");
            if (begin == std::string_view::npos || !rest.substr(begin).starts_with(part)) return false;
            rest.remove_prefix(begin + part.size());
        }
        at_ = raw_.size() - rest.size();
        return true;
    }

    // False: an escape is not whole yet. What it stands for is simdjson's to say.
    bool take_character(std::string& said) {
        const char c = raw_[at_];
        if (c == '"') {
            is_over_ = true;
            return true;
        }
        if (c != '\\') {
            said += c;
            ++at_;
            return true;
        }
        // A pair of surrogates is two escapes of six.
        size_t size = at_ + 1 < raw_.size() && raw_[at_ + 1] == 'u' ? 6 : 2;
        if (size == 6 && raw_.size() >= at_ + 6 && (raw_[at_ + 2] == 'd' || raw_[at_ + 2] == 'D') && raw_[at_ + 3] > '7') size = 12;
        if (raw_.size() < at_ + size) return false;
        simdjson::dom::parser parser;
        std::string_view text;
        const std::string json = '"' + raw_.substr(at_, size) + '"';
        if (!parser.parse(json).get(text)) said += text;
        at_ += size;
        return true;
    }

    Listener& listener_;
    std::string raw_;
    size_t at_ = 0;
    bool is_over_ = false;
};

}  // namespace

Request without_tools(const Request& request) {
    Request plain = request;
    plain.system = request.system + (request.system.empty() ? "" : "\n\n") + offer(request);
    plain.schema = answer_schema(request);
    plain.tools.clear();
    plain.messages.clear();
    for (const Message& message : request.messages) plain.messages.push_back(as_text(message));
    if (plain.output_tokens_max == 0) plain.output_tokens_max = output_tokens_default_small;
    return plain;
}

Result<Answer> AnyModel::ask(const Request& request, Listener& listener, std::stop_token stop) {
    if (request.tools.empty()) return provider_->ask(request, listener, stop);
    Reader reader(listener);
    auto answer = provider_->ask(without_tools(request), reader, stop);
    if (!answer) return answer;
    simdjson::dom::parser parser;
    Json json;
    Block block;
    std::string_view say;
    if (parser.parse(reader.raw()).get(json)) {
        // It was cut off, or the engine did not hold it to the form: what it said is what there is.
        block.text = reader.raw();
    } else if (const std::string_view tool = text_at(json, "tool"); !tool.empty()) {
        Json input;
        block.kind = Block::Kind::tool_call;
        block.tool = tool;
        block.input = object_at(json, "input", input) ? simdjson::minify(input) : "{}";
    } else if (!json["say"].get(say)) {
        block.text = say;
    } else {
        Json other;
        block.text = json["say"].get(other) ? reader.raw() : simdjson::minify(other);
    }
    answer->stop = block.kind == Block::Kind::tool_call ? Stop::tool_calls : answer->stop;
    listener.on_block(0, block);
    answer->blocks.assign(1, std::move(block));
    return answer;
}

Result<Provider::Count> AnyModel::count(const Request& request, std::stop_token stop) {
    return provider_->count(request.tools.empty() ? request : without_tools(request), stop);
}

}  // namespace torpor::llm
