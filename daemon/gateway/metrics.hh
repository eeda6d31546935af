// What /metrics tells (Prometheus text format 0.0.4), counted as requests end.
#pragma once

#include "daemon/gateway/exchange.hh"

#include <array>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <string_view>

namespace torpor::gateway {

// Cumulative buckets of seconds, from a thaw to a long answer.
class Histogram {
  public:
    static constexpr std::array bounds{0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0};

    void add(double seconds);
    void write(std::string& out, std::string_view name, std::string_view labels) const;

  private:
    std::array<uint64_t, bounds.size() + 1> counts_{};
    double sum_ = 0;
};

// Any thread. Label values are bounded: models that are configured, our own words for all else.
class Metrics {
  public:
    void add(const Outcome& outcome);
    // One more refusal by this limit (Error::limit, a literal); nothing if the name is empty.
    void add_limit(std::string_view limit);
    void write(std::string& out) const;

  private:
    struct OfModel {
        std::map<std::pair<std::string_view, std::string_view>, uint64_t> requests;  // by wire and outcome
        uint64_t input_tokens = 0, output_tokens = 0;
        Histogram queue, cold, thawed, first_byte, total;
    };

    mutable std::mutex mutex_;
    std::map<std::string, OfModel, std::less<>> models_;      // guarded by mutex_
    std::map<std::string_view, uint64_t> limits_;             // guarded by mutex_
};

// `text` as a label's value, escaped.
std::string label_value(std::string_view text);

}  // namespace torpor::gateway
