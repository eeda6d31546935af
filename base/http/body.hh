// A request's body, and its share of the memory that all bodies together may take.
#pragma once

#include <atomic>
#include <cstddef>
#include <string>
#include <utility>

namespace torpor::http {

// A number of bytes that many share. Any thread.
class ByteBudget {
  public:
    explicit ByteBudget(size_t bytes_max) : bytes_max_(bytes_max) {}
    ByteBudget(const ByteBudget&) = delete;
    ByteBudget& operator=(const ByteBudget&) = delete;

    size_t used() const { return used_; }

  private:
    friend class ByteShare;
    const size_t bytes_max_;
    std::atomic<size_t> used_{0};
};

// Part of a budget, given back by destruction. Must not outlive the budget. One thread at a time.
class ByteShare {
  public:
    ByteShare() = default;
    explicit ByteShare(ByteBudget& budget) : budget_(&budget) {}
    ByteShare(ByteShare&& other) noexcept
        : budget_(std::exchange(other.budget_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
    ByteShare& operator=(ByteShare&& other) noexcept {
        if (this != &other) {
            release();
            budget_ = std::exchange(other.budget_, nullptr);
            bytes_ = std::exchange(other.bytes_, 0);
        }
        return *this;
    }
    ~ByteShare() { release(); }

    // False, and nothing taken, when the budget has no room for so many more.
    bool grow(size_t bytes) {
        if (budget_->used_.fetch_add(bytes) + bytes > budget_->bytes_max_) {
            budget_->used_.fetch_sub(bytes);
            return false;
        }
        bytes_ += bytes;
        return true;
    }
    void release() {
        if (budget_ != nullptr) budget_->used_.fetch_sub(bytes_);
        bytes_ = 0;
    }

  private:
    ByteBudget* budget_ = nullptr;
    size_t bytes_ = 0;
};

struct Body {
    std::string text;
    ByteShare share;

    void clear() {
        std::string().swap(text);
        share.release();
    }
};

}  // namespace torpor::http
