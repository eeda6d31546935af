#include "daemon/agent/context.hh"

#include "daemon/agent/event_body.hh"

#include <limits>
#include <utility>

namespace torpor::agent {

namespace {

constexpr std::string_view interrupted_note = "[The turn before this was interrupted by the user.]";
constexpr std::string_view go_on_note = "Go on.";

llm::Block text_block(std::string text) {
    llm::Block block;
    block.text = std::move(text);
    return block;
}

}  // namespace

void Context::say(int64_t seq, std::string text) {
    if (!text.empty()) said_.push_back({seq, text_block(std::move(text))});
}

void Context::add(const store::Event& event) {
    const EventBody body(event.body);
    if (event.kind == "prompt") {
        auto& said = waiting_[event.seq];
        simdjson::dom::array images;
        if (body.get("images", images)) {
            for (const simdjson::dom::element image : images) {
                std::string_view hash, type;
                if (image["content"].get(hash) || image["media_type"].get(type)) continue;
                llm::Block block;
                block.kind = llm::Block::Kind::image;
                block.media_type = type;
                block.bytes = hash;
                said.push_back({event.seq, std::move(block)});
            }
        }
        if (std::string text = body.text("text"); !text.empty()) said.push_back({event.seq, text_block(std::move(text))});
    } else if (event.kind == "prompt_withdrawn") {
        waiting_.erase(body.number("prompt"));
    } else if (event.kind == "turn_started") {
        begin_turn(event);
    } else if (event.kind == "turn_retried") {
        was_interrupted_ = false;
        if (calls_.empty() && said_.empty() && !messages_.empty()) say(event.seq, std::string(go_on_note));
    } else if (event.kind == "steered") {
        say(event.seq, body.text("text"));
    } else if (event.kind == "text" || event.kind == "reasoning" || event.kind == "tool_call") {
        take_block(event);
    } else if (event.kind == "answered") {
        end_answer(event);
    } else if (event.kind == "tool_result") {
        llm::Block block;
        block.kind = llm::Block::Kind::tool_result;
        block.call = body.text("call");
        block.tool = body.text("tool");
        block.text = body.text("output");
        block.is_error = body.text("outcome") != "done";
        results_[block.call] = std::move(block);
    } else if (event.kind == "turn_ended") {
        was_interrupted_ = body.text("outcome") == "interrupted";
    }
}

void Context::begin_turn(const store::Event& event) {
    const EventBody body(event.body);
    if (was_interrupted_) say(event.seq, std::string(interrupted_note));
    was_interrupted_ = false;
    const auto prompt = waiting_.find(body.number("prompt"));
    if (prompt == waiting_.end()) return;
    for (Said& said : prompt->second) {
        said.seq = event.seq;
        said_.push_back(std::move(said));
    }
    waiting_.erase(prompt);
}

void Context::take_block(const store::Event& event) {
    const EventBody body(event.body);
    const int64_t turn = body.number("turn"), answer = body.number("answer");
    // Blocks of an answer that was lost count for nothing.
    if (turn != answering_.turn || answer != answering_.answer) answering_ = {turn, answer, {}};
    llm::Block block;
    block.text = body.text("text");
    block.opaque = body.json("opaque");
    block.wire = body.text("wire");
    if (event.kind == "reasoning") block.kind = llm::Block::Kind::reasoning;
    if (event.kind == "tool_call") {
        block.kind = llm::Block::Kind::tool_call;
        block.call = body.text("call");
        block.tool = body.text("tool");
        block.input = body.json("input");
        block.text.clear();
    }
    answering_.blocks[body.number("block")] = std::move(block);
}

llm::Message Context::pending(int64_t up_to) const {
    llm::Message message;
    for (const std::string& call : calls_) {
        const auto result = results_.find(call);
        if (result != results_.end()) {
            message.blocks.push_back(result->second);
            continue;
        }
        llm::Block missing;  // a fork or an import may end before it
        missing.kind = llm::Block::Kind::tool_result;
        missing.call = call;
        missing.text = "What this call did is not known.";
        missing.is_error = true;
        message.blocks.push_back(std::move(missing));
    }
    for (const Said& said : said_) {
        if (said.seq <= up_to) message.blocks.push_back(said.block);
    }
    return message;
}

void Context::end_answer(const store::Event& event) {
    const EventBody body(event.body);
    Answering answering = std::exchange(answering_, {});
    if (body.number("turn") != answering.turn || body.number("answer") != answering.answer) answering.blocks.clear();
    llm::Message answer{llm::Message::Role::assistant, {}};
    std::vector<std::string> calls;
    for (auto& [place, block] : answering.blocks) {
        if (block.kind == llm::Block::Kind::tool_call) calls.push_back(block.call);
        answer.blocks.push_back(std::move(block));
    }
    if (answer.blocks.empty()) return;  // it said nothing: no wire takes a message without content
    const int64_t told = body.has("told") ? body.number("told") : event.seq;
    if (llm::Message before = pending(told); !before.blocks.empty()) messages_.push_back(std::move(before));
    messages_.push_back(std::move(answer));
    std::erase_if(said_, [&](const Said& said) { return said.seq <= told; });
    calls_ = std::move(calls);
    results_.clear();
}

std::vector<llm::Message> Context::messages(const Load& load) const {
    std::vector<llm::Message> all = messages_;
    if (llm::Message last = pending(std::numeric_limits<int64_t>::max()); !last.blocks.empty()) all.push_back(std::move(last));
    for (llm::Message& message : all) {
        for (llm::Block& block : message.blocks) {
            if (block.kind != llm::Block::Kind::image) continue;
            if (auto bytes = load(block.bytes)) {
                block.bytes = std::move(*bytes);
            } else {
                block = text_block("[An image was here; it is not kept any more.]");
            }
        }
    }
    return all;
}

}  // namespace torpor::agent
