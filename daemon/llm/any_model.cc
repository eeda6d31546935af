#include "daemon/llm/any_model.hh"

#include "base/json.hh"
#include "daemon/llm/reading.hh"

#include <algorithm>
#include <optional>

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

std::string answer_schema(const Request& request, bool may_call) {
    JsonWriter json;
    json.begin_object().key("anyOf").begin_array();
    for (const ToolSpec& tool : request.tools) {
        if (!may_call) break;
        if (!request.must_call.empty() && request.must_call != tool.name) continue;
        json.begin_object().member("type", "object").key("properties").begin_object().key("tool").begin_object().member("const", tool.name).end_object();
        json.key("input").raw(small_schema(tool)).end_object();
        json.key("required").begin_array().value("tool").value("input").end_array().member("additionalProperties", false).end_object();
    }
    if (may_call && !request.must_call.empty()) return json.end_array().end_object().take();
    json.begin_object().member("type", "object").key("properties").begin_object().key("say");
    if (request.schema.empty()) {
        json.begin_object().member("type", "string").end_object();
    } else {
        json.raw(request.schema);
    }
    json.end_object().key("required").begin_array().value("say").end_array().member("additionalProperties", false).end_object();
    return json.end_array().end_object().take();
}

// "Reads a text file, with line numbers." as "reads a text file".
std::string short_description(std::string_view text) {
    std::string words(text.substr(0, text.find_first_of(".,:;")));
    if (words.size() > 1 && words[1] >= 'a') words[0] = static_cast<char>(std::tolower(static_cast<unsigned char>(words[0])));
    return words;
}

// Forms to be filled in: of several ways to say it, the one that the smallest models follow best.
std::string offer(const Request& request) {
    std::string text = "You answer in JSON. Tools:\n";
    for (const ToolSpec& tool : request.tools) {
        std::string input;
        simdjson::dom::parser parser;
        Json schema;
        if (!parser.parse(tool.schema).get(schema)) {
            for (const Json one : list_at(schema, "required")) {
                std::string_view name;
                if (one.get(name)) continue;
                std::string form(name);
                std::ranges::transform(form, form.begin(), [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
                input += fmt::format("{}\"{}\": {}", input.empty() ? "" : ", ", name, form);
            }
        }
        text += fmt::format("{{\"tool\": \"{}\", \"input\": {{{}}}}} {}\n", tool.name, input, short_description(tool.description));
    }
    return text + "{\"say\": TEXT} talks to the user\n";
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
            case Block::Kind::tool_result: text += fmt::format("{}{}{}", text.empty() ? "" : "\n\n", block.is_error ? "It failed: " : "", block.text); break;
            case Block::Kind::image: plain.blocks.push_back(block); break;
            case Block::Kind::reasoning: break;
        }
    }
    Block block;
    block.text = std::move(text);
    plain.blocks.push_back(std::move(block));
    return plain;
}

// Whether a text ends with the same words again and again, as small models do until they are stopped; the length of what
// is worth keeping.
std::optional<size_t> repeats_from(std::string_view text) {
    constexpr size_t period_min = 12, period_max = 240, times = 3;
    for (size_t period = period_min; period <= period_max && period * times <= text.size(); ++period) {
        const std::string_view end = text.substr(text.size() - period);
        bool is_repeated = true;
        for (size_t i = 2; i <= times && is_repeated; ++i) is_repeated = text.substr(text.size() - i * period, period) == end;
        if (!is_repeated) continue;
        // What is kept ends with a sentence, if there is one in the last round.
        const size_t kept = text.size() - (times - 1) * period;
        const size_t end_of_sentence = text.substr(0, kept).find_last_of(".!?\n");
        return end_of_sentence != std::string_view::npos && end_of_sentence + period >= kept ? end_of_sentence + 1 : kept;
    }
    return {};
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
        said_ += said;
        if (const auto kept = repeats_from(said_); kept && !kept_) {
            kept_ = *kept;
            enough_.request_stop();
        }
    }
    void on_block(size_t, const Block&) override {}
    void on_retry(const Error& why, std::chrono::milliseconds wait) override { listener_.on_retry(why, wait); }

    const std::string& raw() const { return raw_; }
    std::stop_source& enough() { return enough_; }
    // What was said before it went round in circles; nothing if it did not.
    std::optional<std::string> kept() const { return kept_ ? std::optional(said_.substr(0, *kept_)) : std::nullopt; }

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
    std::string said_;
    std::optional<size_t> kept_;
    std::stop_source enough_;
};

}  // namespace

Request without_tools(const Request& request, bool may_call) {
    Request plain = request;
    plain.system = request.system + (request.system.empty() ? "" : "\n\n") + offer(request);
    plain.schema = answer_schema(request, may_call);
    plain.tools.clear();
    plain.messages.clear();
    for (const Message& message : request.messages) plain.messages.push_back(as_text(message));
    if (!plain.temperature) plain.temperature = 0;  // a path is right or wrong: the likeliest, not one of several
    if (plain.output_tokens_max == 0) plain.output_tokens_max = output_tokens_default_small;
    return plain;
}

namespace {

// What this JSON text says.
Block block_of(const std::string& raw) {
    simdjson::dom::parser parser;
    Json json;
    Block block;
    std::string_view say;
    if (parser.parse(raw).get(json)) {
        block.text = raw;  // it was cut off, or the engine did not hold it to the form: what it said is what there is
    } else if (const std::string_view tool = text_at(json, "tool"); !tool.empty()) {
        Json input;
        block.kind = Block::Kind::tool_call;
        block.tool = tool;
        block.input = object_at(json, "input", input) ? simdjson::minify(input) : "{}";
    } else if (!json["say"].get(say)) {
        block.text = say;
    } else {
        Json other;
        block.text = json["say"].get(other) ? raw : simdjson::minify(other);
    }
    return block;
}

// Whether it was made since the user spoke: then its result is known.
bool was_made(const Request& request, const Block& call) {
    for (size_t i = request.messages.size(); i-- > 0;) {
        for (const Block& block : request.messages[i].blocks) {
            if (request.messages[i].role == Message::Role::user && block.kind == Block::Kind::text) return false;
            if (block.kind == Block::Kind::tool_call && block.tool == call.tool && block.input == call.input) return true;
        }
    }
    return false;
}

// Asks for one of the two forms; the answer has one block.
Result<Answer> ask_once(Provider& provider, const Request& request, bool may_call, Listener& listener, std::stop_token stop) {
    Reader reader(listener);
    std::stop_callback stops(stop, [&] { reader.enough().request_stop(); });
    auto answer = provider.ask(without_tools(request, may_call), reader, reader.enough().get_token());
    Block block;
    if (const auto kept = reader.kept(); kept && !stop.stop_requested()) {
        if (!answer) answer = Answer();
        block.text = *kept;
        answer->stop = Stop::end;
    } else if (answer) {
        block = block_of(reader.raw());
    } else {
        return answer;
    }
    answer->blocks.assign(1, std::move(block));
    return answer;
}

}  // namespace

Result<Answer> AnyModel::ask(const Request& request, Listener& listener, std::stop_token stop) {
    if (request.tools.empty()) return provider_->ask(request, listener, stop);
    auto answer = ask_once(*provider_, request, true, listener, stop);
    if (!answer) return answer;
    if (answer->blocks[0].kind == Block::Kind::tool_call && was_made(request, answer->blocks[0])) {
        // Small models go round in circles, where all that is left is to say what the tool gave.
        const auto first = answer->usage;
        answer = ask_once(*provider_, request, false, listener, stop);
        if (!answer) return answer;
        if (answer->usage && first) {
            answer->usage->input_tokens += first->input_tokens;
            answer->usage->output_tokens += first->output_tokens;
            answer->usage->cache_read_tokens += first->cache_read_tokens;
        }
    }
    if (answer->blocks[0].kind == Block::Kind::tool_call) answer->stop = Stop::tool_calls;
    listener.on_block(0, answer->blocks[0]);
    return answer;
}

Result<Provider::Count> AnyModel::count(const Request& request, std::stop_token stop) {
    return provider_->count(request.tools.empty() ? request : without_tools(request, true), stop);
}

}  // namespace torpor::llm
