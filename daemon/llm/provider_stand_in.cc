// STAND-IN until the real one is merged.
#include "base/json.hh"
#include "daemon/llm/provider.hh"
#include <httplib.h>
#include <simdjson.h>
#include <map>
namespace torpor::llm {
std::optional<double> cost_of(const ModelFacts& facts, const Usage& usage) {
    if (!facts.price) return {};
    return (static_cast<double>(usage.input_tokens) * facts.price->input + static_cast<double>(usage.output_tokens) * facts.price->output) / 1e6;
}
struct StandIn : Provider {
    Result<Count> count(const Request&, std::stop_token) override { return Count{1, false}; }
    Result<Answer> ask(const Request& r, Listener& listener, std::stop_token stop) override {
        JsonWriter json;
        json.begin_object().member("model", r.model).member("stream", true).key("messages").begin_array();
        json.begin_object().member("role", "system").member("content", r.system).end_object();
        for (const Message& m : r.messages) {
            if (m.role == Message::Role::user) {
                for (const Block& b : m.blocks) {
                    if (b.kind == Block::Kind::tool_result) json.begin_object().member("role", "tool").member("tool_call_id", b.call).member("content", b.text).end_object();
                    else json.begin_object().member("role", "user").member("content", b.text).end_object();
                }
                continue;
            }
            json.begin_object().member("role", "assistant").key("content");
            std::string text;
            for (const Block& b : m.blocks) if (b.kind == Block::Kind::text) text += b.text;
            json.value(text);
            bool any = false;
            for (const Block& b : m.blocks) if (b.kind == Block::Kind::tool_call) {
                if (!any) json.key("tool_calls").begin_array();
                any = true;
                json.begin_object().member("id", b.call).member("type", "function").key("function").begin_object().member("name", b.tool).member("arguments", b.input).end_object().end_object();
            }
            if (any) json.end_array();
            json.end_object();
        }
        json.end_array().end_object();
        httplib::Client client(std::getenv("TORPOR_STAND_IN_PROVIDER"));
        client.set_read_timeout(600, 0);
        std::stop_callback wake(stop, [&] { client.stop(); });
        Answer answer;
        std::string buffer;
        std::map<int64_t, Block> calls;
        std::string text, finish;
        bool done = false;
        httplib::Request request;
        request.method = "POST";
        request.path = "/v1/chat/completions";
        request.body = json.take();
        request.set_header("Content-Type", "application/json");
        request.content_receiver = [&](const char* data, size_t size, uint64_t, uint64_t) {
            buffer.append(data, size);
            for (size_t at; (at = buffer.find("\n\n")) != std::string::npos;) {
                std::string event = buffer.substr(0, at);
                buffer.erase(0, at + 2);
                if (!event.starts_with("data: ")) continue;
                event.erase(0, 6);
                if (event == "[DONE]") { done = true; continue; }
                simdjson::dom::parser parser;
                simdjson::dom::element e;
                if (parser.parse(event).get(e)) return false;
                simdjson::dom::object usage;
                if (!e["usage"].get(usage)) answer.usage = Usage{usage["prompt_tokens"].get_uint64().value(), usage["completion_tokens"].get_uint64().value(), 0, 0};
                simdjson::dom::element choice;
                if (e.at_pointer("/choices/0").get(choice)) continue;
                std::string_view piece;
                if (!choice.at_pointer("/delta/content").get(piece)) { text += piece; listener.on_delta(0, Block::Kind::text, piece); }
                if (!choice["finish_reason"].get(piece)) finish = piece;
                simdjson::dom::array array;
                if (choice.at_pointer("/delta/tool_calls").get(array)) continue;
                for (auto c : array) {
                    Block& b = calls[c["index"].get_int64().value()];
                    b.kind = Block::Kind::tool_call;
                    if (!c["id"].get(piece)) b.call = piece;
                    if (!c.at_pointer("/function/name").get(piece)) b.tool = piece;
                    if (!c.at_pointer("/function/arguments").get(piece)) b.input += piece;
                }
            }
            return !stop.stop_requested();
        };
        auto got = client.send(request);
        if (stop.stop_requested()) return fail(Kind::cancelled, "stopped");
        if (!got) return fail(Kind::unavailable, "test cannot be reached: {}", httplib::to_string(got.error()));
        if (got->status != 200) return fail(Kind::engine, "test answered {}", got->status);
        if (!done) return fail(Kind::engine, "test: the answer was cut short");
        if (!text.empty()) { Block b; b.text = text; answer.blocks.push_back(b); }
        for (auto& [i, b] : calls) answer.blocks.push_back(b);
        for (size_t i = 0; i < answer.blocks.size(); ++i) listener.on_block(i, answer.blocks[i]);
        answer.stop = finish == "tool_calls" ? Stop::tool_calls : finish == "length" ? Stop::output_limit : Stop::end;
        return answer;
    }
};
struct StandIns : Providers {
    Result<Chosen> choose(std::string_view model) const override {
        if (model == "none") return fail(Kind::not_found, "there is no model 'none'");
        return Chosen{std::make_shared<StandIn>(), {.provider = "test", .model = std::string(model), .price = ModelFacts::Price{1, 2, 0, 0}}};
    }
};
std::unique_ptr<Providers> stand_in() { return std::make_unique<StandIns>(); }
}
