#include "daemon/gateway/metrics.hh"

#include <iterator>

namespace torpor::gateway {

namespace {

constexpr size_t models_counted_max = 2000;  // twice what can be configured: some are removed again

void begin(std::string& out, std::string_view name, std::string_view type, std::string_view help) {
    fmt::format_to(std::back_inserter(out), "# HELP {0} {1}\n# TYPE {0} {2}\n", name, help, type);
}

}  // namespace

std::string label_value(std::string_view text) {
    std::string out;
    for (const char c : text) {
        if (c == '\\' || c == '"') out += '\\';
        c == '\n' ? out += "\\n" : out += c;
    }
    return out;
}

void Histogram::add(double seconds) {
    size_t bucket = 0;
    while (bucket < bounds.size() && seconds > bounds[bucket]) ++bucket;
    ++counts_[bucket];
    sum_ += seconds;
}

void Histogram::write(std::string& out, std::string_view name, std::string_view labels) const {
    uint64_t below = 0;
    for (size_t i = 0; i < bounds.size(); ++i) {
        below += counts_[i];
        fmt::format_to(std::back_inserter(out), "{}_bucket{{{},le=\"{}\"}} {}\n", name, labels, bounds[i], below);
    }
    below += counts_.back();
    fmt::format_to(std::back_inserter(out), "{0}_bucket{{{1},le=\"+Inf\"}} {2}\n{0}_sum{{{1}}} {3}\n{0}_count{{{1}}} {2}\n", name,
                   labels, below, sum_);
}

void Metrics::add(const Outcome& outcome) {
    std::lock_guard lock(mutex_);
    if (models_.size() >= models_counted_max && !models_.contains(outcome.model)) return;
    OfModel& model = models_[outcome.model];
    ++model.requests[{outcome.wire->name, outcome.failure.empty() ? "ok" : outcome.failure}];
    model.input_tokens += outcome.usage.input_tokens;
    model.output_tokens += outcome.usage.output_tokens;
    if (outcome.total_ms == 0) return;  // refused before it began: no wait that could be told
    model.queue.add(outcome.queue_ms / 1000);
    if (outcome.wake == gpu::Wake::cold) model.cold.add(outcome.wake_ms / 1000);
    if (outcome.wake == gpu::Wake::thawed) model.thawed.add(outcome.wake_ms / 1000);
    if (outcome.first_byte_ms > 0) model.first_byte.add(outcome.first_byte_ms / 1000);
    model.total.add(outcome.total_ms / 1000);
}

void Metrics::add_limit(std::string_view limit) {
    if (limit.empty()) return;
    std::lock_guard lock(mutex_);
    ++limits_[limit];
}

void Metrics::write(std::string& out) const {
    std::lock_guard lock(mutex_);
    const auto each = [&](std::string_view name, auto write) {
        for (const auto& [model, of] : models_) write(name, fmt::format("model=\"{}\"", label_value(model)), of);
    };
    const auto to = std::back_inserter(out);
    begin(out, "torpor_requests_total", "counter", "Requests to /v1 that ended, by how.");
    each("torpor_requests_total", [&](auto name, const std::string& labels, const OfModel& of) {
        for (const auto& [key, count] : of.requests) {
            fmt::format_to(to, "{}{{{},wire=\"{}\",outcome=\"{}\"}} {}\n", name, labels, key.first, key.second, count);
        }
    });
    begin(out, "torpor_tokens_total", "counter", "Tokens, as engines count them.");
    each("torpor_tokens_total", [&](auto name, const std::string& labels, const OfModel& of) {
        fmt::format_to(to, "{0}{{{1},direction=\"input\"}} {2}\n{0}{{{1},direction=\"output\"}} {3}\n", name, labels, of.input_tokens,
                       of.output_tokens);
    });
    begin(out, "torpor_queue_seconds", "histogram", "Waiting for a worker that was awake.");
    each("torpor_queue_seconds", [&](auto name, const std::string& labels, const OfModel& of) { of.queue.write(out, name, labels); });
    begin(out, "torpor_wake_seconds", "histogram", "Waiting for a worker that had to wake, by what it woke from.");
    each("torpor_wake_seconds", [&](auto name, const std::string& labels, const OfModel& of) {
        of.cold.write(out, name, labels + ",tier=\"cold\"");
        of.thawed.write(out, name, labels + ",tier=\"frozen\"");
    });
    begin(out, "torpor_first_byte_seconds", "histogram", "From a worker that was awake to the first byte of its answer.");
    each("torpor_first_byte_seconds", [&](auto name, const std::string& labels, const OfModel& of) { of.first_byte.write(out, name, labels); });
    begin(out, "torpor_request_seconds", "histogram", "Whole requests.");
    each("torpor_request_seconds", [&](auto name, const std::string& labels, const OfModel& of) { of.total.write(out, name, labels); });
    begin(out, "torpor_limit_hits_total", "counter", "Requests refused or ended by a named limit.");
    for (const auto& [limit, count] : limits_) fmt::format_to(to, "torpor_limit_hits_total{{limit=\"{}\"}} {}\n", limit, count);
}

}  // namespace torpor::gateway
