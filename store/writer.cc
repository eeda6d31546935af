// A commit costs one sync of the disk whatever is in it. While the thread syncs one group, the next gathers in
// the queue, so the more threads write the cheaper each write gets, and a lone write waits for nobody.
#include "store/writer.hh"

#include "base/log.hh"
#include "store/limits.hh"

#include <exception>

namespace torpor::store {

Writer::Writer(Connection connection, OnError on_post_error)
    : connection_(std::move(connection)), on_post_error_(std::move(on_post_error)), thread_([this] { run(); }) {}

Result<void> Writer::write(Job job) {
    if (std::this_thread::get_id() == thread_.get_id()) {
        return fail(Kind::internal, "a write was asked for from within a write");
    }
    const auto waiter = std::make_shared<Waiter>();
    if (auto queued = enqueue({std::move(job), waiter}); !queued) return queued;
    waiter->done.acquire();
    return std::move(waiter->result);
}

void Writer::post(Job job) {
    if (auto queued = enqueue({std::move(job)}); !queued) on_post_error_(queued.error());
}

Result<void> Writer::enqueue(Item item) {
    const std::lock_guard lock(mutex_);
    if (closing_) return fail(Kind::unavailable, "the database is closing");
    if (queue_.size() >= jobs_waiting_max) {
        return fail(Kind::busy, "{} writes already wait for the disk; try again in a moment", queue_.size());
    }
    queue_.push_back(std::move(item));
    if (queue_.size() == 1) work_.notify_one();
    return {};
}

void Writer::close(Job last) {
    {
        const std::lock_guard lock(mutex_);
        closing_ = true;
    }
    work_.notify_one();
    if (!thread_.joinable()) return;
    thread_.join();
    if (last) {
        std::vector<Item> group;
        group.push_back({std::move(last)});
        const auto results = commit(group);
        if (!results[0]) on_post_error_(results[0].error());
    }
    if (auto truncated = connection_.truncate_log(); !truncated) on_post_error_(truncated.error());
    // Closed here, not in the destructor: the owner lets the folder's lock go after this.
    const Connection closed = std::move(connection_);
}

void Writer::run() {
    for (;;) {
        std::vector<Item> group = take_group();
        if (group.empty()) return;
        const std::vector<Result<void>> results = commit(group);
        deliver(group, results);
        truncate_if_due(group.size());
    }
}

// Waits for work. Empty when there is none and there will be none.
std::vector<Writer::Item> Writer::take_group() {
    std::unique_lock lock(mutex_);
    work_.wait(lock, [this] { return !queue_.empty() || closing_; });
    std::vector<Item> group;
    while (!queue_.empty() && group.size() < jobs_in_group_max) {
        group.push_back(std::move(queue_.front()));
        queue_.pop_front();
    }
    return group;
}

// One result a job. A failed commit is everybody's failure; a job that failed before keeps its own error.
std::vector<Result<void>> Writer::commit(std::vector<Item>& group) {
    std::vector<Result<void>> results(group.size());
    Result<void> whole = connection_.run("BEGIN IMMEDIATE");
    for (size_t i = 0; whole && i < group.size(); ++i) {
        results[i] = run_job(group[i].job);
        // A full or failing disk makes SQLite undo the whole transaction, other jobs' work included.
        if (!connection_.is_in_transaction()) {
            whole = results[i] ? fail(Kind::internal, "a job ended the transaction that it was part of")
                               : Failure(results[i].error());
        }
    }
    if (whole) whole = connection_.run("COMMIT");
    if (!whole) {
        if (connection_.is_in_transaction()) static_cast<void>(connection_.execute("ROLLBACK"));
        for (Result<void>& result : results) {
            if (result) result = Failure(whole.error());
        }
    }
    // What the jobs hold may belong to those who wait: gone before they are woken.
    for (Item& item : group) item.job = nullptr;
    return results;
}

Result<void> Writer::run_job(const Job& job) {
    if (auto marked = connection_.run("SAVEPOINT job"); !marked) return marked;
    Result<void> result;
    try {
        result = job(connection_);
    } catch (const std::exception& exception) {
        result = Failure(Error{Kind::internal, "a write to the database broke off", exception.what()});
    }
    if (!connection_.is_in_transaction()) return result;
    auto ended = result ? Result<void>() : connection_.run("ROLLBACK TO job");
    if (ended) ended = connection_.run("RELEASE job");
    return result && !ended ? ended : result;
}

void Writer::deliver(const std::vector<Item>& group, const std::vector<Result<void>>& results) {
    for (size_t i = 0; i < group.size(); ++i) {
        if (group[i].waiter) {
            group[i].waiter->result = results[i];
            group[i].waiter->done.release();
        } else if (!results[i]) {
            on_post_error_(results[i].error());
        }
    }
}

// Bound to the work, not to a timer: an idle daemon does not wake the CPU for it. A reader in the way only
// means that the next empty queue is used.
void Writer::truncate_if_due(size_t jobs_done) {
    jobs_since_truncate_ += jobs_done;
    if (jobs_since_truncate_ < jobs_before_truncate) return;
    {
        const std::lock_guard lock(mutex_);
        if (!queue_.empty()) return;
    }
    const auto truncated = connection_.truncate_log();
    if (!truncated) log::warning("the database's log stays long: {}", truncated.error().text());
    if (truncated && *truncated) jobs_since_truncate_ = 0;
}

}  // namespace torpor::store
