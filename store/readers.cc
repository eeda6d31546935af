#include "store/readers.hh"

#include "store/limits.hh"

#include <optional>

namespace torpor::store {

Result<Readers::Loan> Readers::borrow() {
    {
        std::unique_lock lock(mutex_);
        const auto may_go = [this] { return closed_ || lent_ < readers_max; };
        if (!returned_.wait_for(lock, reader_wait_max, may_go)) {
            return fail(Kind::busy, "all {} readers of the database are in use; try again in a moment", readers_max);
        }
        if (closed_) return fail(Kind::unavailable, "the database is closing");
        ++lent_;
    }
    auto connection = take();
    if (connection) {
        Loan loan(*this, std::move(*connection));
        if (auto begun = (*loan).run("BEGIN"); !begun) return Failure(begun.error());
        return loan;
    }
    const std::lock_guard lock(mutex_);
    --lent_;
    returned_.notify_all();
    return Failure(connection.error());
}

Result<Connection> Readers::take() {
    {
        const std::lock_guard lock(mutex_);
        if (!idle_.empty()) {
            Connection connection = std::move(idle_.back());
            idle_.pop_back();
            return connection;
        }
    }
    return Connection::open(file_, Connection::Access::read_only);
}

void Readers::give_back(Connection connection) {
    std::optional<Connection> usable(std::move(connection));
    if (usable->is_in_transaction() && !usable->run("COMMIT")) usable.reset();
    const std::lock_guard lock(mutex_);
    if (usable) idle_.push_back(std::move(*usable));
    --lent_;
    returned_.notify_all();
}

void Readers::close() {
    std::unique_lock lock(mutex_);
    closed_ = true;
    returned_.notify_all();
    returned_.wait(lock, [this] { return lent_ == 0; });
    idle_.clear();
}

}  // namespace torpor::store
