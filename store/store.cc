#include "store/store.hh"

#include "base/fd.hh"
#include "base/log.hh"
#include "store/schema.hh"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>

namespace torpor::store {

namespace {

// Makes the file 0600 before SQLite opens it; its log and index files take the mode from it. Only here, before
// the first connection: closing any descriptor of the file lets go of all locks that SQLite has on it.
Result<void> make_private_file(const std::filesystem::path& file) {
    const Fd fd(::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
    if (!fd) return fail_errno(Kind::internal, fmt::format("cannot open {}", file.string()));
    if (::fchmod(fd.get(), 0600) != 0) {
        return fail_errno(Kind::internal, fmt::format("{} can be read by others", file.string()));
    }
    return {};
}

Result<void> mark_exit(Connection& connection, bool is_clean) {
    return connection.run("UPDATE meta SET value = ? WHERE name = 'clean_exit'", is_clean ? "1" : "0");
}

// Reads the mark that the last daemon left, and puts down ours: unclean until closed.
Result<bool> take_over(Connection& connection) {
    auto clean = connection.query_integer("SELECT count(*) FROM meta WHERE name = 'clean_exit' AND value = '1'");
    if (!clean) return Failure(clean.error());
    if (auto marked = mark_exit(connection, false); !marked) return Failure(marked.error());
    return *clean == 0;
}

void log_post_error(const Error& error) {
    log::warning("a note in the database was lost: {}", error.text());
}

}  // namespace

Result<std::unique_ptr<Store>> Store::open(const std::filesystem::path& folder, Writer::OnError on_post_error) {
    if (auto made = make_private_folder(folder); !made) return Failure(made.error());
    if (auto local = check_local_disk(folder); !local) return Failure(local.error());
    auto lock = FolderLock::take(folder);
    if (!lock) return Failure(lock.error());

    const std::filesystem::path file = folder / "torpor.db";
    if (auto made = make_private_file(file); !made) return Failure(made.error());
    auto connection = Connection::open(file, Connection::Access::read_write);
    if (!connection) return Failure(connection.error());
    if (auto migrated = migrate(*connection, file, migrations()); !migrated) return Failure(migrated.error());
    if (auto logging = connection->use_write_ahead_log(); !logging) return Failure(logging.error());
    auto was_unclean = take_over(*connection);
    if (!was_unclean) return Failure(was_unclean.error());

    if (!on_post_error) on_post_error = log_post_error;
    return std::make_unique<Store>(Passkey{}, std::move(*lock), file, std::move(*connection),
                                   std::move(on_post_error), *was_unclean);
}

Store::Store(Passkey, FolderLock lock, std::filesystem::path file, Connection connection,
             Writer::OnError on_post_error, bool was_unclean)
    : file_(std::move(file)),
      was_unclean_(was_unclean),
      lock_(std::move(lock)),
      writer_(std::move(connection), std::move(on_post_error)),
      readers_(file_) {
    if (was_unclean_) check_.start(file_);
}

uint64_t Store::log_bytes() const {
    struct stat info{};
    const std::string log = file_.string() + "-wal";
    return ::stat(log.c_str(), &info) == 0 ? static_cast<uint64_t>(info.st_size) : 0;
}

void Store::close() {
    if (is_closed_) return;
    is_closed_ = true;
    check_.stop();
    readers_.close();
    // A file that was not seen to be whole stays marked, so that the next daemon checks it again.
    const bool is_whole = !was_unclean_ || check_.report().state == CheckReport::State::passed;
    writer_.close(is_whole ? Job([](Connection& connection) { return mark_exit(connection, true); }) : Job());
    lock_.reset();
}

int64_t now_ms() {
    const auto since_epoch = std::chrono::system_clock::now().time_since_epoch();
    return std::chrono::duration_cast<std::chrono::milliseconds>(since_epoch).count();
}

}  // namespace torpor::store
