// What the pool knows of a conversation: hashes of how its text begins, one for each block, never the text itself.
//
// Two conversations with the same hash at a block are the same up to there, so the engine has (nearly) the same tokens
// for both. A wrong guess costs time and no more: the engine compares the tokens themselves.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace torpor::gpu {

struct Conversation {
    static constexpr size_t block_bytes = 1024;  // about 250 tokens

    std::vector<uint64_t> blocks;  // hash of all that stands before the end of each; what does not fill one is left out
    // Adapters of its own choice: then the same tokens do not make the same state.
    bool names_adapters = false;
    bool names_slot = false;  // the request says itself which slot it wants

    // How many blocks both begin with.
    size_t in_common(const Conversation& other) const;
    bool operator==(const Conversation&) const = default;
};

// Makes one from its texts, in their order. A text is told from the same bytes in two texts.
class ConversationHasher {
  public:
    ConversationHasher();
    ~ConversationHasher();
    void add(std::string_view text);
    Conversation take() { return std::move(conversation_); }

  private:
    void feed(std::string_view bytes);

    struct State;
    std::unique_ptr<State> state_;
    size_t in_block_ = 0;
    Conversation conversation_;
};

}  // namespace torpor::gpu
