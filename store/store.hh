// The database of one daemon: one writer, a few readers, one lock on the folder.
//
//     store->write([&](Connection& db) { return put_snapshot(db, snapshot); });        // on disk when it returns
//     store->post([=](Connection& db) { return note_used(db, model, now_ms); });       // soon
//     auto all = store->read([](Connection& db) { return all_snapshots(db); });
//
// All of these may be called from any thread, and block it on the disk but for post(): the loop's thread posts.
#pragma once

#include "base/error.hh"
#include "store/check.hh"
#include "store/database.hh"
#include "store/folder_lock.hh"
#include "store/readers.hh"
#include "store/writer.hh"

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <type_traits>
#include <utility>

namespace torpor::store {

class Store {
    struct Passkey {};

  public:
    // Makes the folder if need be, locks it, and opens `<folder>/torpor.db`, made or migrated where needed.
    // After an unclean exit the file is checked in the background. `on_post_error` gets the errors of
    // posted jobs (see Writer); without one they are logged.
    // Errors: `conflict` if another torpord (its pid is named) uses the folder, or the file is not ours or of
    // a newer version; `refused` for a network filesystem; else `internal`.
    static Result<std::unique_ptr<Store>> open(const std::filesystem::path& folder,
                                               Writer::OnError on_post_error = {});

    Store(Passkey, FolderLock lock, std::filesystem::path file, Connection connection,
          Writer::OnError on_post_error, bool was_unclean);
    ~Store() { close(); }
    Store(const Store&) = delete;
    Store& operator=(const Store&) = delete;

    // Blocks until what the job wrote is on disk. See Writer::write.
    Result<void> write(Job job) { return writer_.write(std::move(job)); }

    // Returns at once; errors go to `on_post_error`.
    void post(Job job) { writer_.post(std::move(job)); }

    // Calls `reader`, which returns some Result<T> and keeps no statement, with a read-only connection.
    // Short, please: a long read keeps the log from being emptied. Sees all that write() acknowledged.
    template <class Reader>
    std::invoke_result_t<Reader&, Connection&> read(Reader&& reader) {
        auto loan = readers_.borrow();
        if (!loan) return Failure(loan.error());
        return reader(**loan);
    }

    // Whether the last daemon on this folder ended without closing it, and what the check found so far.
    bool was_unclean() const { return was_unclean_; }
    CheckReport check_report() const { return check_.report(); }

    // Length of the write-ahead log: grows when a reader keeps it from being emptied.
    uint64_t log_bytes() const;

    // Waits for readers, commits what waits, empties the log, marks the exit as clean and lets the folder
    // go. Later calls fail with `unavailable`. By the owner; the destructor does it too.
    void close();

  private:
    const std::filesystem::path file_;
    const bool was_unclean_;

    // Destroyed from the last to the first: the lock goes when nothing has the file open.
    std::optional<FolderLock> lock_;
    Writer writer_;
    Readers readers_;
    BackgroundCheck check_;
    bool is_closed_ = false;  // the owner's
};

// Milliseconds since 1970, as all times in the tables.
int64_t now_ms();

}  // namespace torpor::store
