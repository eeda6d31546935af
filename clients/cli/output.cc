#include "clients/cli/output.hh"

#include "base/text.hh"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace torpor::cli {

Table::Table(std::vector<std::string> heading) {
    rows_.push_back(std::move(heading));
}

void Table::add(std::vector<std::string> row) {
    rows_.push_back(std::move(row));
}

void Table::print() const {
    std::vector<size_t> widths(rows_[0].size());
    for (const auto& row : rows_) {
        for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
    }
    const bool styled = may_style(STDOUT_FILENO);
    for (const auto& row : rows_) {
        std::string line;
        for (size_t i = 0; i < row.size(); ++i) {
            line += row[i];
            if (i + 1 < row.size()) line.append(widths[i] - row[i].size() + 2, ' ');
        }
        if (styled && &row == &rows_[0]) line = "\033[2m" + line + "\033[0m";
        print_line(line);
    }
}

bool print_line(std::string_view text) {
    return std::fwrite(text.data(), 1, text.size(), stdout) == text.size() && std::fputc('\n', stdout) != EOF;
}

Progress::Progress(std::string_view text, bool counts) {
    const char* term = std::getenv("TERM");
    shown_ = ::isatty(STDERR_FILENO) != 0 && term != nullptr && std::strcmp(term, "dumb") != 0;
    if (shown_) std::fprintf(stderr, "%.*s", static_cast<int>(text.size()), text.data());
    if (!shown_ || !counts) return;
    counter_ = std::thread([this, line = std::string(text)] {
        std::unique_lock lock(mutex_);
        for (int seconds = 1; !ended_.wait_for(lock, std::chrono::seconds(1), [this] { return is_over_; }); ++seconds) {
            std::fprintf(stderr, "\r\033[K%s %d s", line.c_str(), seconds);
        }
    });
}

void Progress::end() {
    if (counter_.joinable()) {
        {
            std::lock_guard lock(mutex_);
            is_over_ = true;
        }
        ended_.notify_one();
        counter_.join();
    }
    if (shown_) std::fputs("\r\033[K", stderr);
    shown_ = false;
}

std::string ago(int64_t epoch_ms) {
    if (epoch_ms == 0) return "never";
    const auto since_epoch = std::chrono::system_clock::now().time_since_epoch();
    const auto now = std::chrono::duration_cast<std::chrono::milliseconds>(since_epoch).count();
    const std::chrono::milliseconds age(std::max<int64_t>(0, now - epoch_ms) / 1000 * 1000);
    return age.count() == 0 ? "now" : format_duration(age) + " ago";
}

bool may_style(int fd) {
    const char* no_color = std::getenv("NO_COLOR");
    return ::isatty(fd) != 0 && (no_color == nullptr || no_color[0] == '\0');
}

}  // namespace torpor::cli
