#include "daemon/llm/building.hh"

#include "daemon/llm/limits.hh"

#include <algorithm>

namespace torpor::llm {

Result<size_t> Building::open(Block::Kind kind) {
    if (blocks_.size() >= answer_blocks_max) return fail(Kind::engine, "the answer has more than {} parts", answer_blocks_max);
    Part part;
    part.block.kind = kind;
    blocks_.push_back(std::move(part));
    return blocks_.size() - 1;
}

Result<void> Building::add(size_t block, std::string_view piece) {
    if (piece.empty() || !is_open(block)) return {};
    bytes_ += piece.size();
    if (bytes_ > answer_bytes_max) return fail(Kind::engine, "the answer is larger than {} bytes", answer_bytes_max);
    Block& into = at(block);
    (into.kind == Block::Kind::tool_call ? into.input : into.text) += piece;
    listener_.on_delta(block, into.kind, piece);
    return {};
}

void Building::close(size_t block) {
    if (!is_open(block)) return;
    Part& part = blocks_[block];
    part.is_closed = true;
    if (!part.block.opaque.empty()) part.block.wire = wire_;
    listener_.on_block(block, part.block);
}

void Building::close_all() {
    for (size_t i = 0; i < blocks_.size(); ++i) close(i);
}

bool Building::has_calls() const {
    return std::ranges::any_of(blocks_, [](const Part& part) { return part.block.kind == Block::Kind::tool_call; });
}

Answer Building::take() {
    close_all();
    Answer answer;
    for (Part& part : blocks_) answer.blocks.push_back(std::move(part.block));
    answer.stop = stop;
    answer.usage = usage;
    answer.model = std::move(model);
    return answer;
}

}  // namespace torpor::llm
