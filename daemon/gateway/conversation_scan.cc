#include "daemon/gateway/conversation_scan.hh"

#include "daemon/gateway/limits.hh"

#include <algorithm>
#include <array>
#include <cstring>

namespace torpor::gateway {

namespace {

constexpr std::string_view spaces = " \t\r\n";

// Goes through JSON text from token to token. Each step takes at least one byte, so any bytes come to an end.
class Tokens {
  public:
    explicit Tokens(std::string_view json) : json_(json) {}

    bool at_end() {
        at_ = std::min(json_.find_first_not_of(spaces, at_), json_.size());
        return at_ == json_.size();
    }
    char peek() const { return json_[at_]; }
    void skip_one() { ++at_; }
    size_t place() const { return at_; }

    // At a quote: what is between it and its end, as it is written.
    std::string_view text() {
        const size_t begin = ++at_;
        for (;;) {
            const void* quote = at_ < json_.size() ? std::memchr(json_.data() + at_, '"', json_.size() - at_) : nullptr;
            if (quote == nullptr) {
                at_ = json_.size();
                return json_.substr(begin);
            }
            const size_t end = static_cast<size_t>(static_cast<const char*>(quote) - json_.data());
            at_ = end + 1;
            size_t backslashes = 0;
            while (end - backslashes > begin && json_[end - backslashes - 1] == '\\') ++backslashes;
            if (backslashes % 2 == 0) return json_.substr(begin, end - begin);
        }
    }
    // At a number, true, false or null.
    std::string_view scalar() {
        const size_t begin = at_;
        at_ = std::min(json_.find_first_of(" \t\r\n,:[]{}\"", at_), json_.size());
        if (at_ == begin) ++at_;
        return json_.substr(begin, at_ - begin);
    }
    bool is_text() const { return peek() == '"'; }
    bool is_bracket() const { return std::strchr("[]{},:", peek()) != nullptr && peek() != '\0'; }
    // After a text: whether it was a member's name. Takes the colon.
    bool took_colon() {
        if (at_end() || peek() != ':') return false;
        ++at_;
        return true;
    }
    // The whole value, and its bytes.
    std::string_view value() {
        if (at_end()) return {};
        const size_t begin = at_;
        size_t depth = 0;
        do {
            const char c = peek();
            if (c == '"') {
                text();
            } else if (is_bracket()) {
                if (c == '[' || c == '{') ++depth;
                if ((c == ']' || c == '}') && depth > 0) --depth;
                ++at_;
            } else {
                scalar();
            }
        } while (depth > 0 && !at_end());
        return json_.substr(begin, at_ - begin);
    }

  private:
    const std::string_view json_;
    size_t at_ = 0;
};

void add_texts(std::string_view json, gpu::ConversationHasher& hasher) {
    Tokens tokens(json);
    while (!tokens.at_end()) {
        if (tokens.is_text()) {
            const std::string_view text = tokens.text();
            if (!tokens.took_colon()) {
                hasher.add(text);
            } else if (text == "cache_control" || text == "type") {
                tokens.value();
            }
        } else if (tokens.is_bracket()) {
            tokens.skip_one();
        } else {
            hasher.add(tokens.scalar());
        }
    }
}

// In the order in which they stand in a prompt, whatever their order in the request.
constexpr std::array<std::string_view, 6> members{"system", "instructions", "tools", "messages", "input", "prompt"};

}  // namespace

gpu::Conversation scan_conversation(std::string_view body) {
    bool names_adapters = false, names_slot = false;
    std::array<std::string_view, members.size()> values;
    Tokens tokens(body);
    if (tokens.at_end() || tokens.peek() != '{') return {};
    tokens.skip_one();
    while (!tokens.at_end()) {
        if (!tokens.is_text()) {
            tokens.skip_one();
            continue;
        }
        const std::string_view name = tokens.text();
        if (!tokens.took_colon()) continue;
        const std::string_view value = tokens.value();
        names_adapters |= name == "lora" || name.find('\\') != std::string_view::npos;  // whatever that spells
        names_slot |= name == "id_slot";
        const auto* const found = std::ranges::find(members, name);
        if (found != members.end()) values[static_cast<size_t>(found - members.begin())] = value;
    }
    gpu::ConversationHasher hasher;
    if (body.size() <= conversation_bytes_max) {
        for (const std::string_view value : values) add_texts(value, hasher);
    }
    gpu::Conversation conversation = hasher.take();
    conversation.names_adapters = names_adapters;
    conversation.names_slot = names_slot;
    return conversation;
}

}  // namespace torpor::gateway
