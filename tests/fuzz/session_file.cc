// A session as a file: whatever it is, it is taken whole or refused with the line, and what was taken is written out again.
#include "daemon/api/session_file.hh"
#include "store/schema.hh"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <optional>

using namespace torpor;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    static const std::filesystem::path file = std::filesystem::temp_directory_path() / ("torpor-fuzz-" + std::to_string(std::rand()) + ".db");
    static std::optional<store::Connection> db = [] {
        std::ofstream{file};
        auto opened = store::Connection::open(file, store::Connection::Access::read_write);
        if (!opened || !store::migrate(*opened, file, store::migrations())) std::abort();
        std::filesystem::remove(file);  // it stays open
        return std::optional<store::Connection>(std::move(*opened));
    }();
    if (!db->execute("BEGIN")) std::abort();
    store::Session row;
    row.id = store::new_session_id();
    api::SessionReader reader(*db, row, "fuzz");
    const auto read = reader.read({reinterpret_cast<const char*>(data), size});
    if (!read && read.error().message.empty()) std::abort();
    if (read) {
        const auto events = store::events_after(*db, row.id, 0, 1000, 1 << 20);
        if (!events || events->empty() || events->front().kind != "created") std::abort();
    }
    if (!db->execute("ROLLBACK")) std::abort();
    return 0;
}
