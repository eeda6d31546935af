#include "base/log.hh"

#include "base/json.hh"
#include "base/limits.hh"

#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/rotating_file_sink.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <chrono>

namespace torpor::log {

namespace {

// One JSON object a line: {"time":"2026-01-31T12:00:00.123Z","level":"info","message":"..."}
class JsonLines final : public spdlog::formatter {
  public:
    void format(const spdlog::details::log_msg& message, spdlog::memory_buf_t& out) override {
        const auto level = spdlog::level::to_string_view(message.level);
        JsonWriter json;
        json.begin_object()
            .member("time", time_text(message.time))
            .member("level", std::string_view(level.data(), level.size()))
            .member("message", std::string_view(message.payload.data(), message.payload.size()))
            .end_object();
        out.append(json.text().data(), json.text().data() + json.text().size());
        out.push_back('\n');
    }
    std::unique_ptr<spdlog::formatter> clone() const override { return std::make_unique<JsonLines>(); }
};

spdlog::level::level_enum to_spdlog(Level level) {
    switch (level) {
        case Level::debug: return spdlog::level::debug;
        case Level::info: return spdlog::level::info;
        case Level::warning: return spdlog::level::warn;
        case Level::error: return spdlog::level::err;
    }
    return spdlog::level::info;
}

}  // namespace

std::string time_text(std::chrono::system_clock::time_point time) {
    const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(time.time_since_epoch());
    const std::time_t seconds = static_cast<std::time_t>(ms.count() / 1000);
    std::tm utc{};
    gmtime_r(&seconds, &utc);
    char text[32];
    const size_t length = std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &utc);
    return fmt::format("{}.{:03}Z", std::string_view(text, length), ms.count() % 1000);
}

void open(const std::filesystem::path& file, Level least) {
    spdlog::sink_ptr sink;
    const bool is_terminal = file.empty() && ::isatty(STDERR_FILENO) != 0;
    if (file.empty()) {
        sink = std::make_shared<spdlog::sinks::stderr_color_sink_mt>();
    } else {
        sink = std::make_shared<spdlog::sinks::rotating_file_sink_mt>(file.string(), daemon_log_bytes_max,
                                                                      daemon_log_files_max);
    }
    auto logger = std::make_shared<spdlog::logger>("torpord", sink);
    if (is_terminal) {
        logger->set_pattern("%H:%M:%S.%e %^%-7l%$ %v");
    } else {
        logger->set_formatter(std::make_unique<JsonLines>());
    }
    logger->set_level(to_spdlog(least));
    logger->flush_on(spdlog::level::info);
    spdlog::set_default_logger(std::move(logger));
}

void set_level(Level least) {
    spdlog::default_logger()->set_level(to_spdlog(least));
}

void write(Level level, std::string_view message) {
    spdlog::log(to_spdlog(level), "{}", message);
}

void flush() {
    spdlog::default_logger()->flush();
}

}  // namespace torpor::log
