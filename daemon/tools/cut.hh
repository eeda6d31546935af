// What is too long for a model: its beginning and its end are kept, and what is left out is said.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace torpor::tools {

// At most `bytes_max`, and the line that tells what is missing; whole characters.
std::string cut_middle(std::string_view text, size_t bytes_max);

// Grows by pieces and forgets its middle: never much more than `bytes_max` in memory.
class Keeper {
  public:
    explicit Keeper(size_t bytes_max) : half_(bytes_max / 2) {}
    void add(std::string_view piece);
    // All of it, or its beginning and its end with a line between them.
    std::string text() const;

  private:
    const size_t half_;
    std::string head_;
    std::string tail_;      // twice as long as needed before it is shortened
    size_t left_out_ = 0;
};

// The length of `text` without a character at its end that is not whole yet.
size_t whole_characters(std::string_view text);

}  // namespace torpor::tools
