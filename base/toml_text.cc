#include "base/toml_text.hh"

#include <algorithm>
#include <cctype>

namespace torpor {

namespace {

class Scanner {
  public:
    Scanner(std::string_view text, const std::string& file) : text_(text), file_(file) {}

    Result<void> run() {
        if (text_.starts_with("\xEF\xBB\xBF")) at_ = 3;  // a byte order mark is allowed
        for (; at_ < text_.size(); ++at_) {
            const auto c = static_cast<unsigned char>(text_[at_]);
            if ((c < ' ' && c != '\t' && c != '\n' && c != '\r') || c == 0x7f) {
                return torpor::fail(Kind::invalid, "{}:{}: a control character (0x{:02x})", file_, line_, c);
            }
            if (c >= 0x80 && within_ == Within::nothing) {
                return torpor::fail(Kind::invalid, "{}:{}: letters that are not ASCII must be in quotes", file_, line_);
            }
            if (text_[at_] == '[' && is_header_start() && !has_name_after()) {
                return torpor::fail(Kind::invalid, "{}:{}: a table's name must follow the bracket", file_, line_);
            }
            take(text_[at_]);
        }
        return {};
    }

  private:
    enum class Within { nothing, comment, one_line, many_lines };

    void take(char c) {
        if (c == '\n') {
            ++line_;
            if (within_ != Within::many_lines) within_ = Within::nothing;
            if (within_ == Within::nothing && depth_ == 0) in_line_ = in_value_ = false;
            return;
        }
        if (within_ == Within::nothing) {
            if (c == '=') in_value_ = true;
            if (in_value_ && (c == '[' || c == '{')) ++depth_;
            if (depth_ > 0 && (c == ']' || c == '}')) --depth_;
        }
        if (c != ' ' && c != '\t' && c != '\r') in_line_ = true;
        switch (within_) {
            case Within::comment: return;
            case Within::nothing:
                if (c == '#') within_ = Within::comment;
                if (c == '"' || c == '\'') open(c);
                return;
            case Within::one_line:
            case Within::many_lines:
                if (c == quote_) return close();
                // What is escaped ends nothing; an escaped line end is still one.
                if (c == '\\' && quote_ == '"' && at_ + 1 < text_.size() && text_[at_ + 1] != '\n') ++at_;
        }
    }

    // The first thing in a line, and not within an array that goes over lines.
    bool is_header_start() const { return within_ == Within::nothing && !in_line_; }

    // The parser takes for granted that a name follows "[" or "[[".
    bool has_name_after() const {
        size_t at = at_ + 1;
        if (at < text_.size() && text_[at] == '[') ++at;
        at = text_.find_first_not_of(" \t", at);
        if (at == std::string_view::npos) return true;  // it says itself that the text ended
        const char c = text_[at];
        return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_' || c == '-' || c == '"' || c == '\'' || c == ']';
    }

    size_t quotes_here() const {
        const size_t end = text_.find_first_not_of(quote_, at_);
        return (end == std::string_view::npos ? text_.size() : end) - at_;
    }

    void open(char quote) {
        quote_ = quote;
        const bool is_long = quotes_here() >= 3;
        within_ = is_long ? Within::many_lines : Within::one_line;
        if (is_long) at_ += 2;
    }

    void close() {
        if (within_ == Within::one_line) {
            within_ = Within::nothing;
            return;
        }
        const size_t count = quotes_here();
        if (count >= 3) within_ = Within::nothing;
        at_ += std::min<size_t>(count, 5) - 1;  // two of them may be the text's own
    }

    std::string_view text_;
    const std::string& file_;
    size_t at_ = 0;
    int line_ = 1;
    int depth_ = 0;         // of brackets in a value
    bool in_line_ = false;  // something stands before in this line
    bool in_value_ = false;  // an equals sign does
    Within within_ = Within::nothing;
    char quote_ = '"';
};

}  // namespace

Result<void> check_toml_text(std::string_view text, const std::string& file) {
    return Scanner(text, file).run();
}

}  // namespace torpor
