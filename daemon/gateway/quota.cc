#include "daemon/gateway/quota.hh"

#include "store/limits.hh"

#include <algorithm>
#include <cmath>
#include <ctime>

namespace torpor::gateway {

namespace {

// Source of the names: OpenAI, "Rate limits" (headers); Anthropic, "Rate limits" (response headers).
std::string header_lines(uint32_t limit, double left, double seconds_until_full) {
    const std::time_t reset = std::time(nullptr) + static_cast<std::time_t>(std::ceil(seconds_until_full));
    std::tm utc{};
    gmtime_r(&reset, &utc);
    char text[32];
    const size_t length = std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &utc);
    const auto whole = static_cast<uint64_t>(left);
    return fmt::format("x-ratelimit-limit-requests: {0}\r\nx-ratelimit-remaining-requests: {1}\r\n"
                       "x-ratelimit-reset-requests: {2:.3f}s\r\nanthropic-ratelimit-requests-limit: {0}\r\n"
                       "anthropic-ratelimit-requests-remaining: {1}\r\nanthropic-ratelimit-requests-reset: {3}\r\n",
                       limit, whole, seconds_until_full, std::string_view(text, length));
}

}  // namespace

Result<std::unique_ptr<Quotas::Permit>> Quotas::admit(const std::string& principal, const store::KeyLimits& limits,
                                                      Clock::time_point now) {
    const size_t concurrent_max = limits.concurrent > 0 ? limits.concurrent : concurrent_default_;
    std::lock_guard lock(mutex_);
    if (uses_.size() > 2 * store::keys_max) {  // of keys that were removed
        std::erase_if(uses_, [](const auto& entry) { return entry.second.concurrent == 0; });
    }
    const auto [entry, is_new] = uses_.try_emplace(principal);
    Use& use = entry->second;
    if (use.concurrent >= concurrent_max) {
        return fail_limit(Kind::busy, "requests_per_key",
                          fmt::format("the key {} has {} requests under way already; wait for one to end", principal, concurrent_max));
    }
    std::string headers;
    if (const double minute = limits.requests_per_minute; minute > 0) {
        const double rate = minute / 60;
        const double gained = std::chrono::duration<double>(now - use.filled).count() * rate;
        use.tokens = is_new || use.filled == Clock::time_point{} ? minute : std::min(minute, use.tokens + gained);
        use.filled = now;
        if (use.tokens < 1) {
            auto refused = fail_limit(Kind::busy, "requests_per_minute",
                                      fmt::format("the key {} may ask {} times a minute; try again in {:.0f} s", principal,
                                                  limits.requests_per_minute, std::ceil((1 - use.tokens) / rate)));
            refused.value().retry_after_s = static_cast<int>(std::ceil((1 - use.tokens) / rate));
            return refused;
        }
        use.tokens -= 1;
        headers = header_lines(limits.requests_per_minute, use.tokens, (minute - use.tokens) / rate);
    }
    ++use.concurrent;
    auto permit = std::make_unique<Permit>(this, principal);
    permit->headers = std::move(headers);
    return permit;
}

void Quotas::leave(const std::string& principal) {
    std::lock_guard lock(mutex_);
    if (const auto found = uses_.find(principal); found != uses_.end() && found->second.concurrent > 0) --found->second.concurrent;
}

}  // namespace torpor::gateway
