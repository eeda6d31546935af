#include "daemon/tools/cut.hh"

#include <fmt/format.h>

namespace torpor::tools {

namespace {

bool continues_character(char byte) {
    return (static_cast<unsigned char>(byte) & 0xC0) == 0x80;
}

std::string join(std::string_view head, size_t left_out, std::string_view tail) {
    while (!tail.empty() && continues_character(tail.front())) {
        tail.remove_prefix(1);
        ++left_out;
    }
    return fmt::format("{}\n[... {} bytes are left out here ...]\n{}", head, left_out, tail);
}

}  // namespace

size_t whole_characters(std::string_view text) {
    size_t begin = text.size();
    for (int back = 0; back < 4 && begin > 0; ++back) {
        --begin;
        if (continues_character(text[begin])) continue;
        const auto lead = static_cast<unsigned char>(text[begin]);
        const size_t length = lead < 0x80 ? 1 : lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : lead >= 0xC0 ? 2 : 1;
        return begin + length > text.size() ? begin : text.size();
    }
    return text.size();
}

std::string cut_middle(std::string_view text, size_t bytes_max) {
    if (text.size() <= bytes_max) return std::string(text);
    const size_t head = whole_characters(text.substr(0, bytes_max / 2));
    const size_t tail = bytes_max / 2;
    return join(text.substr(0, head), text.size() - head - tail, text.substr(text.size() - tail));
}

void Keeper::add(std::string_view piece) {
    if (head_.size() < half_ && tail_.empty()) {
        const size_t taken = std::min(piece.size(), half_ - head_.size());
        head_ += piece.substr(0, taken);
        piece.remove_prefix(taken);
    }
    tail_ += piece;
    if (tail_.size() <= 2 * half_) return;
    left_out_ += tail_.size() - half_;
    tail_.erase(0, tail_.size() - half_);
}

std::string Keeper::text() const {
    if (left_out_ == 0 && tail_.size() <= half_) return head_ + tail_;
    const size_t kept = std::min(half_, tail_.size());
    const size_t head = whole_characters(head_);
    return join(std::string_view(head_).substr(0, head), left_out_ + tail_.size() - kept + head_.size() - head,
                std::string_view(tail_).substr(tail_.size() - kept));
}

}  // namespace torpor::tools
