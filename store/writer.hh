// The one thread that writes: jobs that wait together are committed together.
#pragma once

#include "base/error.hh"
#include "store/database.hh"

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <semaphore>
#include <thread>
#include <vector>

namespace torpor::store {

// Writes through the connection, inside a transaction that it neither begins nor ends. If it fails, what it
// wrote is undone and nothing else. May run any time until its write() returns, on the writer's thread.
using Job = std::function<Result<void>(Connection&)>;

class Writer {
  public:
    using OnError = std::function<void(const Error&)>;

    // `on_post_error` gets the errors of posted jobs, on the writer's thread or, for a full queue, on the
    // thread that posts. It must not write.
    Writer(Connection connection, OnError on_post_error);
    ~Writer() { close({}); }
    Writer(const Writer&) = delete;
    Writer& operator=(const Writer&) = delete;

    // Blocks until the job's transaction is on disk. From any thread but the writer's own. Errors: the job's;
    // `busy` if jobs_waiting_max jobs wait; `unavailable` after close() began; a failed commit's.
    Result<void> write(Job job);

    // Returns at once; the job is committed soon, in order with the others.
    void post(Job job);

    // Commits what waits, then `last` if there is one, empties the log and closes the connection. Once, by
    // the owner; further calls do nothing.
    void close(Job last);

  private:
    // Shared, since the writer may still touch it as the one who waited leaves.
    struct Waiter {
        std::binary_semaphore done{0};
        Result<void> result;     // written before `done`, read after it
    };
    struct Item {
        Job job;
        std::shared_ptr<Waiter> waiter = {};  // none: posted
    };

    Result<void> enqueue(Item item);
    void run();
    std::vector<Item> take_group();
    std::vector<Result<void>> commit(std::vector<Item>& group);
    Result<void> run_job(const Job& job);
    void deliver(const std::vector<Item>& group, const std::vector<Result<void>>& results);
    void truncate_if_due(size_t jobs_done);

    // The writer's thread; after it has ended, the owner.
    Connection connection_;
    size_t jobs_since_truncate_ = 0;

    const OnError on_post_error_;

    std::mutex mutex_;
    std::condition_variable work_;
    std::deque<Item> queue_;  // guarded by mutex_
    bool closing_ = false;    // guarded by mutex_

    std::thread thread_;
};

}  // namespace torpor::store
