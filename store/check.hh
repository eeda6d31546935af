// Is the file whole? Asked after an unclean exit in the background, and by `torpor doctor`.
#pragma once

#include "base/error.hh"
#include "store/database.hh"

#include <atomic>
#include <filesystem>
#include <mutex>
#include <string>
#include <thread>

namespace torpor::store {

// How much is looked at: `quick` reads every page, `whole` compares every index with its table too.
enum class Depth { quick, whole };

// `internal` with the first problems as the cause if the file is damaged.
Result<void> check_file(Connection& connection, Depth depth);

struct CheckReport {
    enum class State { not_needed, running, passed, damaged, stopped };

    State state = State::not_needed;
    std::string message;  // for people; empty unless damaged or stopped by an error
};

// One quick check on a thread and a read-only connection of its own. The outcome is logged, too.
class BackgroundCheck {
  public:
    BackgroundCheck() = default;
    ~BackgroundCheck() { stop(); }
    BackgroundCheck(const BackgroundCheck&) = delete;
    BackgroundCheck& operator=(const BackgroundCheck&) = delete;

    // Once, by the owner.
    void start(const std::filesystem::path& file);
    // Ends it within milliseconds and waits for that. By the owner.
    void stop();
    // From any thread.
    CheckReport report() const;

  private:
    void run(const std::filesystem::path& file);

    std::thread thread_;
    std::atomic<bool> stopping_{false};

    mutable std::mutex mutex_;
    CheckReport report_;  // guarded by mutex_
};

}  // namespace torpor::store
