// A few read-only connections, opened when they are first needed and lent to one reader at a time.
#pragma once

#include "base/error.hh"
#include "store/database.hh"

#include <condition_variable>
#include <cstddef>
#include <filesystem>
#include <mutex>
#include <vector>

namespace torpor::store {

class Readers {
  public:
    // A lent connection, inside a read transaction: all that it reads is of one moment. Gives the
    // connection back when destroyed.
    class Loan {
      public:
        Loan(Readers& readers, Connection connection)
            : readers_(&readers), connection_(std::move(connection)) {}
        Loan(Loan&& other) noexcept
            : readers_(std::exchange(other.readers_, nullptr)), connection_(std::move(other.connection_)) {}
        Loan& operator=(Loan&&) = delete;
        ~Loan() {
            if (readers_) readers_->give_back(std::move(connection_));
        }

        Connection& operator*() { return connection_; }

      private:
        Readers* readers_;
        Connection connection_;
    };

    explicit Readers(std::filesystem::path file) : file_(std::move(file)) {}
    ~Readers() { close(); }
    Readers(const Readers&) = delete;
    Readers& operator=(const Readers&) = delete;

    // Waits at most reader_wait_max for one of the readers_max, then `busy`; `unavailable` after close().
    Result<Loan> borrow();

    // Closes all, waiting for those that are lent.
    void close();

  private:
    Result<Connection> take();
    void give_back(Connection connection);

    const std::filesystem::path file_;

    std::mutex mutex_;
    std::condition_variable returned_;
    std::vector<Connection> idle_;  // guarded by mutex_
    size_t lent_ = 0;               // guarded by mutex_
    bool closed_ = false;           // guarded by mutex_
};

}  // namespace torpor::store
