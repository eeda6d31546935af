// An answer in the making, for the decoders: keeps its blocks, tells the listener, holds the limits.
#pragma once

#include "base/error.hh"
#include "daemon/llm/provider.hh"

#include <string_view>
#include <vector>

namespace torpor::llm {

class Building {
  public:
    Building(Listener& listener, std::string_view wire) : listener_(listener), wire_(wire) {}

    // Each returns `engine` once the answer is larger than any is.
    Result<size_t> open(Block::Kind kind);
    Result<void> add(size_t block, std::string_view piece);   // to its text, or a tool call's input
    // It is whole: told, and not to be changed any more. Again: nothing.
    void close(size_t block);
    void close_all();

    bool is_open(size_t block) const { return block < blocks_.size() && !blocks_[block].is_closed; }
    Block& at(size_t block) { return blocks_[block].block; }
    size_t count() const { return blocks_.size(); }
    bool has_calls() const;

    Stop stop = Stop::end;
    std::optional<Usage> usage = {};
    std::string model = {};

    // All of it; what is open is closed.
    Answer take();

  private:
    struct Part {
        Block block;
        bool is_closed = false;
    };
    Listener& listener_;
    const std::string_view wire_;
    std::vector<Part> blocks_;
    size_t bytes_ = 0;
};

}  // namespace torpor::llm
