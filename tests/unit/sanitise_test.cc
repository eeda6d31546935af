#include "clients/cli/sanitise.hh"

#include <doctest/doctest.h>

using torpor::cli::Sanitiser;
using torpor::cli::sanitise;

TEST_CASE("nothing that a model says can touch the terminal") {
    CHECK(sanitise("plain\ttext, ä 😀\n") == "plain\ttext, ä 😀\n");
    CHECK(sanitise("\x1b]0;owned\x07") == "^[]0;owned^G");
    CHECK(sanitise("a\rb\r\n") == "ab\n");
    CHECK(sanitise("\x7f\b") == "^?^H");
    CHECK(sanitise("\xc2\x9b" "31m") == "<U+009B>31m");
    CHECK(sanitise("\x9b" "31m") == "<9B>31m");
    CHECK(sanitise("\u202etxt.exe") == "<U+202E>txt.exe");
    CHECK(sanitise("\xf3\xa0\x81\x81") == "<U+E0041>");        // a tag that nobody sees
    CHECK(sanitise("\xc0\x9b\xed\xa0\x80\xff") == "<C0><9B><ED><A0><80><FF>");  // too long, a surrogate, no UTF-8
    CHECK(sanitise("\xe2\x82") == "<E2><82>");
}

TEST_CASE("pieces of any size say the same") {
    const std::string text = "ä€😀\x1b[2J\u202e\xff z\xe2\x82";
    for (size_t size = 1; size < text.size(); ++size) {
        Sanitiser sanitiser;
        std::string out;
        for (size_t at = 0; at < text.size(); at += size) out += sanitiser.take(std::string_view(text).substr(at, size));
        CHECK(out + sanitiser.end() == sanitise(text));
    }
}
