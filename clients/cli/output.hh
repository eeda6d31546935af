// What people see: results on standard output, everything else on standard error.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

namespace torpor::cli {

// Text in columns as wide as their longest cell. The heading is dim on a terminal.
class Table {
  public:
    explicit Table(std::vector<std::string> heading);
    void add(std::vector<std::string> row);
    void print() const;

  private:
    std::vector<std::vector<std::string>> rows_;
};

// To standard output, with a newline. False (and errno) when it cannot be written.
bool print_line(std::string_view text);

// A line about what goes on, on standard error, only if that is a terminal; it goes when this is destroyed. With
// `counts` it says after each second how many have passed.
class Progress {
  public:
    explicit Progress(std::string_view text, bool counts = false);
    ~Progress() { end(); }
    Progress(const Progress&) = delete;
    Progress& operator=(const Progress&) = delete;
    void end();

  private:
    bool shown_;
    std::mutex mutex_;
    std::condition_variable ended_;
    bool is_over_ = false;  // guarded by mutex_
    std::thread counter_;
};

// "12s ago", "3h 5m ago", "never" for 0.
std::string ago(int64_t epoch_ms);

// Whether escape sequences for looks may be used on this descriptor (a terminal, and no NO_COLOR).
bool may_style(int fd);

}  // namespace torpor::cli
