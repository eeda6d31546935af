#include "gpu/conversation.hh"

#include <xxhash.h>

#include <algorithm>

namespace torpor::gpu {

size_t Conversation::in_common(const Conversation& other) const {
    // Where one block is the same, so are all before it.
    size_t same = 0, different = std::min(blocks.size(), other.blocks.size()) + 1;
    while (different - same > 1) {
        const size_t middle = same + (different - same) / 2;
        (blocks[middle - 1] == other.blocks[middle - 1] ? same : different) = middle;
    }
    return same;
}

struct ConversationHasher::State {
    XXH3_state_t* of = XXH3_createState();
    State() { XXH3_64bits_reset(of); }
    ~State() { XXH3_freeState(of); }
    State(const State&) = delete;
    State& operator=(const State&) = delete;
};

ConversationHasher::ConversationHasher() : state_(std::make_unique<State>()) {}

ConversationHasher::~ConversationHasher() = default;

void ConversationHasher::add(std::string_view text) {
    feed(text);
    feed(std::string_view("\0", 1));
}

void ConversationHasher::feed(std::string_view bytes) {
    while (!bytes.empty()) {
        const std::string_view piece = bytes.substr(0, Conversation::block_bytes - in_block_);
        XXH3_64bits_update(state_->of, piece.data(), piece.size());
        in_block_ += piece.size();
        bytes.remove_prefix(piece.size());
        if (in_block_ < Conversation::block_bytes) return;
        in_block_ = 0;
        conversation_.blocks.push_back(XXH3_64bits_digest(state_->of));
    }
}

}  // namespace torpor::gpu
