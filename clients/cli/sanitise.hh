// Making what models and tools say harmless for a terminal: nothing in it can move the cursor, set the title, change colours or
// hide what it says.
#pragma once

#include <string>
#include <string_view>

namespace torpor::cli {

// Takes a text in pieces of any size. What is no printable character, newline or tab is shown instead of sent: escape and
// other controls as in "^[", those beyond ASCII, marks that turn the direction of writing, and bytes that are no UTF-8 as in
// "<U+202E>" and "<9B>". Source of the ranges: Unicode's general categories Cc and Bidi_Control.
class Sanitiser {
  public:
    std::string take(std::string_view piece);
    // What was kept back as the beginning of a character.
    std::string end();

  private:
    std::string begun_;
};

std::string sanitise(std::string_view text);

}  // namespace torpor::cli
