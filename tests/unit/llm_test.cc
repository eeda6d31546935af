#include "base/base64.hh"
#include "base/sse.hh"
#include "daemon/llm/any_model.hh"
#include "daemon/llm/gguf.hh"
#include "daemon/llm/limits.hh"
#include "daemon/llm/provider_config.hh"
#include "daemon/llm/wire.hh"
#include "temporary_folder.hh"

#include <doctest/doctest.h>

#include <fstream>

using namespace torpor;
using namespace torpor::llm;
using BlockKind = Block::Kind;

namespace {

struct Heard : Listener {
    std::vector<std::string> deltas;
    std::vector<Block> blocks;
    void on_delta(size_t block, BlockKind, std::string_view piece) override {
        if (deltas.size() <= block) deltas.resize(block + 1);
        deltas[block] += piece;
    }
    void on_block(size_t, const Block& whole) override { blocks.push_back(whole); }
    void on_retry(const Error&, std::chrono::milliseconds) override {}
};

// The answer that this stream is, however its bytes are cut.
Result<Answer> decode(const Wire& wire, std::string_view stream, Heard& heard, size_t piece = 7) {
    const auto decoder = wire.decode(heard);
    SseParser parser(stream_event_bytes_max);
    Result<void> taken;
    for (size_t at = 0; at < stream.size() && taken; at += piece) {
        auto fed = parser.feed(stream.substr(at, piece), [&](std::string_view event, std::string_view data) {
            if (taken) taken = decoder->take(event, data);
        });
        if (!fed) taken = fed;
    }
    if (!taken) return Failure(taken.error());
    return decoder->finish();
}

std::string events(std::initializer_list<std::string_view> all) {
    std::string stream;
    for (const std::string_view one : all) stream += fmt::format("data: {}\n\n", one);
    return stream;
}

Block text(const std::string& words) {
    Block block;
    block.text = words;
    return block;
}

// A conversation with all that there is.
Request whole_request(std::string_view wire, const std::string& opaque) {
    Request request;
    request.model = "gpt-5";
    request.system = "Be brief.";
    request.session = "s1";
    request.tools.push_back({"look", "Looks.", R"({"type":"object"})"});
    Block image, reasoning, call, result;
    image.kind = BlockKind::image;
    image.media_type = "image/png";
    image.bytes = "PNG";
    reasoning.kind = BlockKind::reasoning;
    reasoning.text = "Hm.";
    reasoning.opaque = opaque;
    reasoning.wire = wire;
    call.kind = BlockKind::tool_call;
    call.call = "c1";
    call.tool = "look";
    call.input = R"({"at":"it"})";
    result.kind = BlockKind::tool_result;
    result.call = "c1";
    result.text = "nothing";
    result.is_error = true;
    request.messages.push_back({Message::Role::user, {text("See?"), image}});
    request.messages.push_back({Message::Role::assistant, {reasoning, text("I look."), call}});
    request.messages.push_back({Message::Role::user, {result, text("Well?")}});
    return request;
}

bool contains(const std::string& all, std::string_view part) {
    return all.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("the Anthropic wire: what is asked") {
    const std::string body = anthropic_messages.write(whole_request("anthropic-messages", R"({"signature":"sig"})"), {});
    CHECK(contains(body, R"("system":[{"type":"text","text":"Be brief.","cache_control":{"type":"ephemeral"}}])"));
    CHECK(contains(body, R"({"type":"image","source":{"type":"base64","media_type":"image/png","data":"UE5H"}})"));
    CHECK(contains(body, R"({"type":"thinking","thinking":"Hm.","signature":"sig"})"));
    CHECK(contains(body, R"({"type":"tool_use","id":"c1","name":"look","input":{"at":"it"}})"));
    CHECK(contains(body, R"({"type":"tool_result","tool_use_id":"c1","content":"nothing","is_error":true})"));
    CHECK(contains(body, R"({"type":"text","text":"Well?","cache_control":{"type":"ephemeral"}})"));
    CHECK(contains(body, R"("max_tokens":16384)"));
    const std::string other = anthropic_messages.write(whole_request("openai-chat", R"({"field":"reasoning"})"), {});
    CHECK(!contains(other, "Hm."));  // another wire's reasoning means nothing here
    CHECK(!contains(anthropic_messages.write_count(whole_request("", "{}")), "max_tokens"));
}

TEST_CASE("the Anthropic wire: an answer with all that there is") {
    Heard heard;
    const auto answer = decode(anthropic_messages, events({
        R"({"type":"message_start","message":{"model":"claude-x","usage":{"input_tokens":5,"cache_read_input_tokens":100,"cache_creation_input_tokens":20,"output_tokens":1}}})",
        R"({"type":"ping"})",
        R"({"type":"content_block_start","index":0,"content_block":{"type":"thinking","thinking":"","signature":""}})",
        R"({"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"Hm."}})",
        R"({"type":"content_block_delta","index":0,"delta":{"type":"signature_delta","signature":"sig"}})",
        R"({"type":"content_block_stop","index":0})",
        R"({"type":"content_block_start","index":1,"content_block":{"type":"redacted_thinking","data":"xyz"}})",
        R"({"type":"content_block_stop","index":1})",
        R"({"type":"content_block_start","index":2,"content_block":{"type":"text","text":""}})",
        R"({"type":"content_block_delta","index":2,"delta":{"type":"text_delta","text":"I l"}})",
        R"({"type":"content_block_delta","index":2,"delta":{"type":"text_delta","text":"ook: ä"}})",
        R"({"type":"content_block_stop","index":2})",
        R"({"type":"content_block_start","index":3,"content_block":{"type":"tool_use","id":"t1","name":"look","input":{}}})",
        R"({"type":"content_block_start","index":4,"content_block":{"type":"tool_use","id":"t2","name":"look","input":{}}})",
        R"({"type":"content_block_delta","index":3,"delta":{"type":"input_json_delta","partial_json":"{\"a\":"}})",
        R"({"type":"content_block_delta","index":4,"delta":{"type":"input_json_delta","partial_json":"{}"}})",
        R"({"type":"content_block_delta","index":3,"delta":{"type":"input_json_delta","partial_json":"1}"}})",
        R"({"type":"content_block_stop","index":3})",
        R"({"type":"content_block_stop","index":4})",
        R"({"type":"message_delta","delta":{"stop_reason":"tool_use"},"usage":{"output_tokens":42}})",
        R"({"type":"message_stop"})"}), heard);
    REQUIRE_MESSAGE(answer, (answer ? "" : answer.error().text()));
    REQUIRE(answer->blocks.size() == 5);
    CHECK(answer->blocks[0].opaque == R"({"signature":"sig"})");
    CHECK(answer->blocks[1].opaque == R"({"data":"xyz"})");
    CHECK(answer->blocks[2].text == "I look: ä");
    CHECK(answer->blocks[3].input == R"({"a":1})");
    CHECK(answer->blocks[4].call == "t2");
    CHECK(answer->stop == Stop::tool_calls);
    CHECK(answer->usage->input_tokens == 125);
    CHECK(answer->usage->cache_read_tokens == 100);
    CHECK(answer->usage->cache_write_tokens == 20);
    CHECK(answer->usage->output_tokens == 42);
    CHECK(heard.blocks.size() == 5);
    CHECK(heard.deltas[2] == "I look: ä");
}

TEST_CASE("the chat wire: what is asked") {
    const std::string body = openai_chat.write(whole_request("openai-chat", R"({"field":"reasoning_content"})"), {});
    CHECK(contains(body, R"({"role":"system","content":"Be brief."})"));
    CHECK(contains(body, R"({"type":"image_url","image_url":{"url":"data:image/png;base64,UE5H"}})"));
    CHECK(contains(body, R"({"role":"assistant","reasoning_content":"Hm.","content":"I look.","tool_calls":[{"id":"c1","type":"function","function":{"name":"look","arguments":"{\"at\":\"it\"}"}}]})"));
    CHECK(contains(body, R"({"role":"tool","tool_call_id":"c1","content":"nothing"},{"role":"user","content":"Well?"})"));
    CHECK(contains(body, R"("stream_options":{"include_usage":true})"));
}

TEST_CASE("the chat wire: an answer with all that there is") {
    Heard heard;
    const auto answer = decode(openai_chat, events({
        R"({"model":"m","choices":[{"index":0,"delta":{"role":"assistant","content":null}}]})",
        R"({"choices":[{"index":0,"delta":{"reasoning_content":"Hm."}}]})",
        R"({"choices":[{"index":0,"delta":{"content":"I look."}}]})",
        R"({"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"a","type":"function","function":{"name":"look","arguments":""}}]}}]})",
        R"({"choices":[{"index":0,"delta":{"tool_calls":[{"index":1,"id":"b","type":"function","function":{"name":"see","arguments":"{}"}}]}}]})",
        R"({"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{\"x\":"}}]}}]})",
        R"({"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"1}"}}]}}]})",
        R"({"choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}]})",
        R"({"choices":[],"usage":{"prompt_tokens":10,"completion_tokens":5,"prompt_tokens_details":{"cached_tokens":8}}})", "[DONE]"}), heard);
    REQUIRE_MESSAGE(answer, (answer ? "" : answer.error().text()));
    REQUIRE(answer->blocks.size() == 4);
    CHECK(answer->blocks[0].kind == BlockKind::reasoning);
    CHECK(answer->blocks[0].opaque == R"({"field":"reasoning_content"})");
    CHECK(answer->blocks[0].wire == "openai-chat");
    CHECK(answer->blocks[1].text == "I look.");
    CHECK(answer->blocks[2].input == R"({"x":1})");
    CHECK(answer->blocks[3].tool == "see");
    CHECK(answer->stop == Stop::tool_calls);
    CHECK(answer->usage->cache_read_tokens == 8);
}

TEST_CASE("the Responses wire: there and back") {
    const std::string item = R"({"type":"reasoning","id":"rs_1","summary":[],"encrypted_content":"gAAA"})";
    const std::string body = openai_responses.write(whole_request("openai-responses", item), {});
    CHECK(contains(body, item));
    CHECK(contains(body, R"("include":["reasoning.encrypted_content"])"));
    CHECK(contains(body, R"("store":false)"));
    CHECK(contains(body, R"("prompt_cache_key":"s1")"));
    CHECK(contains(body, R"({"type":"function_call","call_id":"c1","name":"look","arguments":"{\"at\":\"it\"}"})"));
    CHECK(contains(body, R"({"type":"function_call_output","call_id":"c1","output":"nothing"})"));
    Heard heard;
    const auto answer = decode(openai_responses, events({
        R"({"type":"response.created","response":{"id":"r"}})",
        R"({"type":"response.output_item.added","output_index":0,"item":{"type":"reasoning","id":"rs_1"}})",
        R"({"type":"response.reasoning_summary_text.delta","output_index":0,"delta":"Hm."})",
        fmt::format(R"({{"type":"response.output_item.done","output_index":0,"item":{}}})", item),
        R"({"type":"response.output_item.added","output_index":1,"item":{"type":"message","role":"assistant"}})",
        R"({"type":"response.output_text.delta","output_index":1,"delta":"I look."})",
        R"({"type":"response.output_item.done","output_index":1,"item":{"type":"message","content":[{"type":"output_text","text":"I look."}]}})",
        R"({"type":"response.output_item.added","output_index":2,"item":{"type":"function_call","call_id":"c","name":"look"}})",
        R"({"type":"response.function_call_arguments.delta","output_index":2,"delta":"{}"})",
        R"({"type":"response.output_item.done","output_index":2,"item":{"type":"function_call","call_id":"c","name":"look","arguments":"{}"}})",
        R"({"type":"response.completed","response":{"model":"gpt-5","usage":{"input_tokens":7,"output_tokens":3,"input_tokens_details":{"cached_tokens":6}}}})"}), heard);
    REQUIRE_MESSAGE(answer, (answer ? "" : answer.error().text()));
    REQUIRE(answer->blocks.size() == 3);
    CHECK(answer->blocks[0].opaque == item);
    CHECK(answer->blocks[2].call == "c");
    CHECK(answer->stop == Stop::tool_calls);
    CHECK(answer->usage->cache_read_tokens == 6);
}

TEST_CASE("streams that are none end in a clear error on each wire") {
    for (const Wire* wire : wires()) {
        CAPTURE(wire->name);
        for (const std::string& stream : {std::string(), std::string("data: {\"type\":\"message_start\"}\n\n"), std::string("data: {\"choices\":[{\"delta\":{\"content\":\"Hal\"}}]}\n\n"),
                                          std::string("data: <html>\n\n"), std::string("data: {\"a\":\"\xff\xfe\"}\n\n"), std::string("data: [1,2]\n\n")}) {
            CAPTURE(stream);
            Heard heard;
            const auto answer = decode(*wire, stream, heard);
            REQUIRE(!answer);
            CHECK(answer.error().kind == Kind::engine);
            CHECK(!answer.error().message.empty());
        }
        Heard heard;
        const auto failed = decode(*wire, events({R"({"type":"error","error":{"type":"overloaded_error","code":"rate_limit_exceeded","message":"too busy"}})"}), heard);
        REQUIRE(!failed);
        CHECK(contains(failed.error().message, "too busy"));
        const auto huge = decode(*wire, "data: " + std::string(stream_event_bytes_max + 1, 'x') + "\n\n", heard, 1 << 20);
        REQUIRE(!huge);
    }
}

TEST_CASE("any model: tools become words, and words become calls") {
    struct Scripted : Provider {
        std::vector<std::string> says;
        std::vector<Request> asked;
        Result<Answer> ask(const Request& request, Listener& listener, std::stop_token stop) override {
            asked.push_back(request);
            std::string all = says.at(asked.size() - 1);
            for (size_t at = 0; at < all.size() && !stop.stop_requested(); at += 3) listener.on_delta(0, BlockKind::text, std::string_view(all).substr(at, 3));
            if (stop.stop_requested()) return fail(Kind::cancelled, "stopped");
            Answer answer;
            answer.blocks.push_back(text(all));
            return answer;
        }
        Result<Count> count(const Request&, std::stop_token) override { return Count{1, false}; }
    };
    const auto scripted = std::make_shared<Scripted>();
    AnyModel any(scripted);
    Request request;
    request.tools.push_back({"read_file", "Reads a text file, with line numbers. More.", R"({"type":"object","properties":{"path":{"type":"string"},"limit":{"type":"integer"}},"required":["path"]})"});
    request.messages.push_back({Message::Role::user, {text("Read it.")}});
    Heard heard;
    SUBCASE("a call") {
        scripted->says = {R"({"tool": "read_file", "input": {"path": "notes.txt"}})"};
        const auto answer = any.ask(request, heard, {});
        REQUIRE(answer);
        CHECK(answer->blocks[0].kind == BlockKind::tool_call);
        CHECK(answer->blocks[0].input == R"({"path":"notes.txt"})");
        CHECK(answer->stop == Stop::tool_calls);
        CHECK(heard.deltas.empty());
        const Request& plain = scripted->asked[0];
        CHECK(plain.tools.empty());
        CHECK(contains(plain.system, R"({"tool": "read_file", "input": {"path": PATH}} reads a text file)"));
        CHECK(!contains(plain.schema, "limit"));
        CHECK(!contains(plain.schema, "notes"));
    }
    SUBCASE("words, as they come") {
        scripted->says = {R"( { "say" : "Hi \"you\"\n\u00e4\ud83d\ude00" } )"};
        const auto answer = any.ask(request, heard, {});
        REQUIRE(answer);
        CHECK(answer->blocks[0].text == "Hi \"you\"\nä😀");
        CHECK(heard.deltas[0] == "Hi \"you\"\nä😀");
    }
    SUBCASE("the same call again is not made") {
        Block call, result;
        call.kind = BlockKind::tool_call;
        call.tool = "read_file";
        call.input = R"({"path":"notes.txt"})";
        result.kind = BlockKind::tool_result;
        result.text = "milk";
        request.messages.push_back({Message::Role::assistant, {call}});
        request.messages.push_back({Message::Role::user, {result}});
        scripted->says = {R"({"tool":"read_file","input":{"path":"notes.txt"}})", R"({"say":"It says milk."})"};
        const auto answer = any.ask(request, heard, {});
        REQUIRE(answer);
        CHECK(answer->blocks[0].text == "It says milk.");
        CHECK(answer->stop == Stop::end);
        CHECK(!contains(scripted->asked[1].schema, "read_file"));
    }
    SUBCASE("what goes round in circles is ended") {
        std::string circles = R"({"say":"The bears wake up. )";
        for (int i = 0; i < 1000; ++i) circles += "They are awake in March. ";
        scripted->says = {circles};
        const auto answer = any.ask(request, heard, {});
        REQUIRE(answer);
        CHECK(answer->blocks[0].text.starts_with("The bears wake up."));
        CHECK(answer->blocks[0].text.ends_with('.'));
        CHECK(answer->blocks[0].text.size() < 80);
    }
    SUBCASE("what is cut off is what there is") {
        scripted->says = {R"({"say":"half)"};
        CHECK(any.ask(request, heard, {})->blocks[0].text == R"({"say":"half)");
    }
}

TEST_CASE("a GGUF file says its template and window, and what is none says nothing") {
    TemporaryFolder folder;
    const auto number = [](auto value) { return std::string(reinterpret_cast<const char*>(&value), sizeof value); };
    const auto string = [&](const std::string& text) { return number(uint64_t{text.size()}) + text; };
    const std::string head = "GGUF" + number(uint32_t{3}) + number(uint64_t{0}) + number(uint64_t{3});
    const std::string words = string("tokenizer.tokens") + number(uint32_t{9}) + number(uint32_t{8}) + number(uint64_t{2}) + string("a") + string("b");
    const std::string window = string("llama.context_length") + number(uint32_t{4}) + number(uint32_t{2048});
    const std::string chat = string("tokenizer.chat_template") + number(uint32_t{8}) + string("{% if tools %}");
    const auto read = [&](const std::string& bytes) {
        std::ofstream(folder / "m.gguf", std::ios::binary) << bytes;
        return read_gguf(folder / "m.gguf");
    };
    const std::string whole = head + words + window + chat;
    CHECK(read(whole)->chat_template == "{% if tools %}");
    CHECK(read(whole)->context_tokens == 2048);
    for (size_t size = 0; size < whole.size(); ++size) CHECK((!read(whole.substr(0, size)) || read(whole.substr(0, size))->chat_template.empty()));
    CHECK(!read("nothing of the kind"));
    CHECK(read(head + string("x") + number(uint32_t{9}) + number(uint32_t{8}) + number(UINT64_MAX))->context_tokens == 0);
}

TEST_CASE("[provider.NAME]: what is wrong is said with its line") {
    const auto read = [](const std::string& toml) { return read_providers(*parse_toml(toml, "c"), "c"); };
    CHECK(read("[x]\nwire = \"openai-chat\"\nbase_url = \"https://x.example/v1/\"\n")->front().base_url == "https://x.example/v1");
    CHECK(read("[anthropic]\nkey_env = \"MY\"\n"));
    const std::pair<const char*, const char*> wrong[] = {
        {"[x]\nwire = \"openai-chat\"\n", "needs a base_url"},
        {"[x]\nbase_url = \"https://x\"\n", "needs a wire"},
        {"[x]\nwire = \"soap\"\nbase_url = \"https://x\"\n", "is no wire"},
        {"[x]\nwir = \"openai-chat\"\n", "did you mean wire?"},
        {"[x]\nwire = \"openai-chat\"\nbase_url = \"http://far.example\"\nkey_env = \"K\"\n", "would travel readable"},
        {"[local]\nwire = \"openai-chat\"\n", "models of this machine"},
        {"[openai.models.m]\ncontext = -1\n", "number of tokens"},
        {"[openai.models.m]\nprice = { input = -1 }\n", "0 or more"},
        {"[openai]\nheaders = { \"x y\" = \"z\" }\n", "one line"},
    };
    for (const auto& one : wrong) {
        CAPTURE(one.first);
        const auto providers = read(one.first);
        REQUIRE(!providers);
        CHECK(contains(providers.error().message, one.second));
        CHECK(providers.error().message.starts_with("c:"));
    }
}

TEST_CASE("base64 is what OpenSSL says, without its indulgence") {
    for (const std::string& bytes : {std::string(), std::string("a"), std::string("ab"), std::string("abc"), std::string("\0\xff\n", 3)}) {
        CHECK(*from_base64(to_base64(bytes)) == bytes);
    }
    CHECK(*from_base64("YQ") == "a");
    for (const char* wrong : {"a", "YQ=a", "Y Q", "Y-Q_", "ä"}) CHECK(!from_base64(wrong));
}
