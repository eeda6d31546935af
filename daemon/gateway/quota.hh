// What one key may ask: requests a minute and requests at once.
//
// The minute is a token bucket: it holds a minute's worth, and refills evenly.
#pragma once

#include "base/error.hh"
#include "store/keys.hh"

#include <chrono>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>

namespace torpor::gateway {

// Any thread.
class Quotas {
  public:
    using Clock = std::chrono::steady_clock;

    // A request under way; destroying it makes room for the next one. Must not outlive the Quotas.
    class Permit {
      public:
        Permit(Quotas* quotas, std::string principal) : quotas_(quotas), principal_(std::move(principal)) {}
        ~Permit() { quotas_->leave(principal_); }
        Permit(const Permit&) = delete;
        Permit& operator=(const Permit&) = delete;

        // Response header lines that say what is left, in both vendors' words; empty without a limit a minute.
        std::string headers;

      private:
        Quotas* quotas_;
        std::string principal_;
    };

    explicit Quotas(size_t concurrent_default) : concurrent_default_(concurrent_default) {}

    // `busy`, saying which limit and when to try again, if the key has used up what it may.
    Result<std::unique_ptr<Permit>> admit(const std::string& principal, const store::KeyLimits& limits, Clock::time_point now = Clock::now());

  private:
    struct Use {
        size_t concurrent = 0;
        double tokens = 0;
        Clock::time_point filled{};
    };

    void leave(const std::string& principal);

    const size_t concurrent_default_;
    std::mutex mutex_;
    std::map<std::string, Use, std::less<>> uses_;  // guarded by mutex_; one a key, so at most store::keys_max
};

}  // namespace torpor::gateway
