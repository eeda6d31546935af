#include "daemon/gateway/conversation_scan.hh"
#include "gpu/conversation.hh"

#include <doctest/doctest.h>

#include <string>

using torpor::gateway::scan_conversation;
using torpor::gpu::Conversation;
using torpor::gpu::ConversationHasher;

namespace {

constexpr size_t block = Conversation::block_bytes;

std::string words(size_t bytes, char first = 'a') {
    std::string text;
    for (size_t i = 0; text.size() < bytes; ++i) text += static_cast<char>(first + static_cast<char>(i % 13));
    return text;
}

std::string message(const std::string& role, const std::string& content) {
    return R"({"role":")" + role + R"(","content":")" + content + "\"}";
}

std::string chat(const std::string& messages, const std::string& more = "") {
    return R"({"model":"m","messages":[)" + messages + "]" + more + "}";
}

}  // namespace

TEST_CASE("conversation: a prefix has the blocks of its whole, up to where they part") {
    ConversationHasher one, two;
    one.add(words(3 * block + 100));
    two.add(words(3 * block + 100));
    two.add(words(5 * block, 'n'));
    const Conversation shorter = one.take(), longer = two.take();
    CHECK(shorter.blocks.size() == 3);
    CHECK(longer.blocks.size() == 8);
    CHECK(shorter.in_common(longer) == 3);
    CHECK(longer.in_common(shorter) == 3);
    CHECK(longer.in_common(longer) == 8);
    CHECK(Conversation{}.in_common(longer) == 0);

    for (const size_t at : {size_t{0}, block - 1, block, 2 * block + 1, 3 * block - 1}) {
        std::string other = words(3 * block);
        other[at] = '!';
        ConversationHasher hasher;
        hasher.add(other);
        CHECK(hasher.take().in_common(shorter) == at / block);
    }
}

TEST_CASE("conversation: one text is not two") {
    ConversationHasher one, two;
    one.add(words(block));
    two.add(words(block).substr(0, 100));
    two.add(words(block).substr(100));
    CHECK(one.take().in_common(two.take()) == 0);
}

TEST_CASE("conversation: the next request of a chat begins as the one before") {
    const std::string first = message("system", words(block)) + "," + message("user", words(2 * block));
    const Conversation before = scan_conversation(chat(first));
    const Conversation after = scan_conversation(chat(first + "," + message("assistant", "Yes.") + "," + message("user", words(block, 'n')), R"(,"stream":true)"));
    CHECK(before.blocks.size() == 3);
    CHECK(after.blocks.size() == 4);
    CHECK(after.in_common(before) == before.blocks.size());
    const Conversation other = scan_conversation(chat(message("system", words(block)) + "," + message("user", words(2 * block, 'n'))));
    CHECK(other.in_common(before) == 1);
}

TEST_CASE("conversation: what clients change from turn to turn does not count") {
    const std::string text = words(2 * block);
    const Conversation plain = scan_conversation(chat(message("user", text)));
    CHECK(plain.blocks.size() == 2);
    CHECK(scan_conversation(chat(R"({"role":"user","content":[{"type":"text","text":")" + text + R"("}]})")) == plain);
    CHECK(scan_conversation(chat(R"( { "role" : "user" , "content":[{"type":"text","text":")" + text +
                                 R"(","cache_control":{"type":"ephemeral","ttl":["5m"]}}]})")) == plain);
    CHECK(scan_conversation(R"({"messages":[)" + message("user", text) + R"(],"temperature":0.5,"model":"other"})") == plain);
}

TEST_CASE("conversation: system and tools come first, wherever they stand, on every wire") {
    const std::string tools = R"("tools":[{"name":"f","description":")" + words(block) + "\"}]";
    const std::string system = R"("system":")" + words(block, 'c') + "\"";
    const std::string messages = R"("messages":[)" + message("user", words(2 * block)) + "]";
    const Conversation one = scan_conversation("{" + messages + "," + tools + "," + system + "}");
    CHECK(one.blocks.size() == 4);
    CHECK(scan_conversation("{" + system + "," + tools + "," + messages + "}") == one);
    CHECK(scan_conversation("{" + messages + "," + tools + "}").in_common(one) == 0);
    CHECK(scan_conversation(R"({"prompt":")" + words(2 * block) + "\"}").blocks.size() == 2);
    CHECK(scan_conversation(R"({"input":")" + words(2 * block) + R"(","instructions":")" + words(block) + "\"}").blocks.size() == 3);
}

TEST_CASE("conversation: escapes and texts that look like structure") {
    const std::string tricky = R"(\"]},{\\\")" + words(block) + R"(\\)";
    const Conversation one = scan_conversation(chat(message("user", tricky) + "," + message("user", words(block))));
    const Conversation two = scan_conversation(chat(message("user", tricky) + "," + message("user", words(block, 'n'))));
    CHECK(one.blocks.size() == 2);
    CHECK(one.in_common(two) == 1);
    CHECK(scan_conversation(chat("", R"(,"inner":{"messages":[")" + words(4 * block) + R"("]})")).blocks.empty());
}

TEST_CASE("conversation: adapters and slots of the request's own choice are seen") {
    const std::string hi = message("user", "Hi");
    CHECK_FALSE(scan_conversation(chat(hi)).names_adapters);
    CHECK_FALSE(scan_conversation(chat(hi)).names_slot);
    CHECK(scan_conversation(chat(hi, R"(,"lora":[])")).names_adapters);
    CHECK(scan_conversation(chat(hi, R"(,"lor\u0061":[])")).names_adapters);
    CHECK(scan_conversation(chat(hi, R"(,"id_slot":1)")).names_slot);
    CHECK(scan_conversation(R"({"lora":[],"prompt":")" + words(9 * 1024 * 1024) + "\"}").names_adapters);
    CHECK(scan_conversation(R"({"prompt":")" + words(9 * 1024 * 1024) + "\"}").blocks.empty());
}

TEST_CASE("conversation: any bytes come to an end") {
    const std::string good = chat(message("user", words(100)) + R"(,{"role":"user","cache_control":{"a":[1,2,{"b":null}]}})", R"(,"n":-1.5e3)");
    for (size_t length = 0; length <= good.size(); ++length) {
        (void)scan_conversation(std::string_view(good).substr(0, length));
        (void)scan_conversation(std::string_view(good).substr(length));
    }
    for (const std::string_view bad : {"", " ", "{", "{}", "[]", "{\"", "{\"a", "{\"a\"", "{\"a\":", "{\"messages\":}", "{]]]}}}", "{\"messages\":\"\\", "\0{"}) {
        CHECK(scan_conversation(bad).blocks.empty());
    }
}
