// HTTP to torpord over its socket.
#pragma once

#include "base/error.hh"
#include "base/folders.hh"

#include <simdjson.h>

#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>

namespace torpor::cli {

// A parsed answer; `root` lives as long as this. Its accessors give nothing ("", 0, false) for what is not
// there or has another type, so that a newer daemon's answer never breaks an older client.
class Answer {
  public:
    static Result<Answer> parse(std::string text);

    simdjson::dom::element root() const { return root_; }

    static std::string_view text(simdjson::dom::element object, std::string_view key);
    static int64_t number(simdjson::dom::element object, std::string_view key);
    static bool truth(simdjson::dom::element object, std::string_view key);
    static simdjson::dom::array list(simdjson::dom::element object, std::string_view key);
    // The texts of a list, with commas between.
    static std::string joined(simdjson::dom::element object, std::string_view key);

  private:
    std::unique_ptr<simdjson::dom::parser> parser_ = std::make_unique<simdjson::dom::parser>();
    simdjson::dom::element root_;
};

// Each call is one request. Errors carry the daemon's own words and kind; no_daemon if it is not there.
class Client {
  public:
    explicit Client(Folders folders) : folders_(std::move(folders)) {}

    const Folders& folders() const { return folders_; }
    // Starts the daemon first where none runs (the default).
    void set_autostart(bool wanted) { autostart_ = wanted; }

    Result<Answer> get(const std::string& path);
    Result<Answer> post(const std::string& path, const std::string& body = "{}");
    Result<Answer> remove(const std::string& path);

    // From the next answer's first byte on, Ctrl-C tells torpord that nobody wants more, and what it still says is read;
    // a second one ends the program.
    void end_sending_on_interrupt() { ends_sending_ = true; }

    struct Streamed {
        std::string server_timing;  // the Server-Timing header
    };
    // `take` gets the body of a good answer in pieces as they come, and stops it by returning false.
    using Take = std::function<bool(std::string_view)>;
    Result<Streamed> stream(const std::string& method, const std::string& path, const std::string& body, const Take& take);

    // From another thread, for good: what is under way fails at once, and whatever comes after it.
    void end();
    bool has_ended() const;

  private:
    Result<Answer> call(const std::string& method, const std::string& path, const std::string& body);

    Folders folders_;
    bool autostart_ = true;
    bool ends_sending_ = false;

    mutable std::mutex mutex_;
    bool has_ended_ = false;                 // guarded by mutex_
    std::function<void()> end_connection_;   // guarded by mutex_; of what is under way
};

// "a b" as it must stand in a path or query.
std::string escape_path(std::string_view text);

}  // namespace torpor::cli
