#include "store/check.hh"

#include "base/log.hh"
#include "store/limits.hh"

namespace torpor::store {

Result<void> check_file(Connection& connection, Depth depth) {
    const char* pragma = depth == Depth::quick ? "quick_check" : "integrity_check";
    auto statement = connection.prepare(fmt::format("PRAGMA {}({})", pragma, check_problems_max));
    if (!statement) return Failure(statement.error());
    std::string problems;
    for (;;) {
        auto row = statement->step();
        if (!row) return Failure(row.error());
        if (!*row) break;
        const std::string line = statement->text(0);
        if (line == "ok") return {};
        if (!problems.empty()) problems += "; ";
        problems += line;
    }
    return Failure(Error{Kind::internal,
                         "the database is damaged; stop torpord, keep a copy of torpor.db, and put a "
                         "torpor.db.backup-v* in its place or move it away",
                         problems});
}

void BackgroundCheck::start(const std::filesystem::path& file) {
    report_.state = CheckReport::State::running;
    thread_ = std::thread([this, file] { run(file); });
}

void BackgroundCheck::stop() {
    stopping_ = true;
    if (thread_.joinable()) thread_.join();
}

CheckReport BackgroundCheck::report() const {
    const std::lock_guard lock(mutex_);
    return report_;
}

void BackgroundCheck::run(const std::filesystem::path& file) {
    Result<void> result;
    if (auto connection = Connection::open(file, Connection::Access::read_only)) {
        connection->stop_when(stopping_);
        result = check_file(*connection, Depth::quick);
    } else {
        result = Failure(connection.error());
    }
    CheckReport report;
    if (result) {
        report.state = CheckReport::State::passed;
        log::info("the last exit was unclean; the database is whole");
    } else if (result.error().kind == Kind::internal) {
        report = {CheckReport::State::damaged, result.error().text()};
        log::error("{}", report.message);
    } else {
        report = {CheckReport::State::stopped, result.error().text()};
        log::warning("the check of the database did not finish: {}", report.message);
    }
    const std::lock_guard lock(mutex_);
    report_ = std::move(report);
}

}  // namespace torpor::store
