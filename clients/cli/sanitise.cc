#include "clients/cli/sanitise.hh"

#include <fmt/format.h>

#include <cstdint>

namespace torpor::cli {

namespace {

// How many bytes the character has that begins so; 0: none does.
size_t size_from(unsigned char first) {
    return first < 0x80 ? 1 : first >= 0xC2 && first < 0xE0 ? 2 : first >= 0xE0 && first < 0xF0 ? 3 : first >= 0xF0 && first < 0xF5 ? 4 : 0;
}

// The character in these bytes; nothing that is one if they are no UTF-8.
constexpr uint32_t none = 0xFFFFFFFF;
uint32_t character_of(std::string_view bytes) {
    uint32_t value = static_cast<unsigned char>(bytes[0]);
    if (bytes.size() == 1) return value;
    value &= 0x7FU >> bytes.size();
    for (const char c : bytes.substr(1)) {
        if ((static_cast<unsigned char>(c) & 0xC0) != 0x80) return none;
        value = value << 6 | (static_cast<unsigned char>(c) & 0x3F);
    }
    constexpr uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    return value < least[bytes.size()] || value > 0x10FFFF || (value >= 0xD800 && value < 0xE000) ? none : value;
}

bool is_harmful(uint32_t c) {
    return (c >= 0x80 && c < 0xA0) || c == 0x061C || c == 0x200E || c == 0x200F || (c >= 0x202A && c <= 0x202E) || (c >= 0x2066 && c <= 0x2069) ||
           (c >= 0xE0000 && c < 0xE0080);
}

void show(std::string& out, std::string_view bytes) {
    const uint32_t c = character_of(bytes);
    if (c == none) {
        for (const char byte : bytes) out += fmt::format("<{:02X}>", static_cast<unsigned char>(byte));
    } else if (c == '\n' || c == '\t' || (c >= 0x20 && c != 0x7F && !is_harmful(c))) {
        out += bytes;
    } else if (c == '\r') {
        // A carriage return before a newline is that of another system; alone it would go over the line again.
    } else if (c < 0x80) {
        out += '^';
        out += c == 0x7F ? '?' : static_cast<char>(c + 0x40);
    } else {
        out += fmt::format("<U+{:04X}>", c);
    }
}

}  // namespace

std::string Sanitiser::take(std::string_view piece) {
    const std::string all = begun_ + std::string(piece);
    begun_.clear();
    std::string out;
    for (size_t at = 0; at < all.size();) {
        const size_t size = size_from(static_cast<unsigned char>(all[at]));
        if (size == 0) {
            out += fmt::format("<{:02X}>", static_cast<unsigned char>(all[at++]));
            continue;
        }
        size_t there = 1;
        while (there < size && at + there < all.size() && (static_cast<unsigned char>(all[at + there]) & 0xC0) == 0x80) ++there;
        if (there < size && at + there == all.size()) {
            begun_ = all.substr(at);
            break;
        }
        if (there < size) {
            out += fmt::format("<{:02X}>", static_cast<unsigned char>(all[at++]));
            continue;
        }
        show(out, std::string_view(all).substr(at, size));
        at += size;
    }
    return out;
}

std::string Sanitiser::end() {
    std::string out;
    for (const char byte : begun_) out += fmt::format("<{:02X}>", static_cast<unsigned char>(byte));
    begun_.clear();
    return out;
}

std::string sanitise(std::string_view text) {
    Sanitiser sanitiser;
    std::string out = sanitiser.take(text);
    return out + sanitiser.end();
}

}  // namespace torpor::cli
