#include "daemon/agent/settings.hh"

#include "base/fd.hh"
#include "base/text.hh"
#include "base/toml.hh"
#include "daemon/agent/limits.hh"
#include "daemon/agent/permissions.hh"
#include "daemon/agent/project.hh"
#include "store/store.hh"
#include "store/trust.hh"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <optional>

namespace torpor::agent {

namespace fs = std::filesystem;

namespace {

constexpr std::array<std::string_view, 2> project_files{"settings.toml", "settings.local.toml"};
constexpr std::array<std::string_view, 3> decisions{"allow", "ask", "deny"};

// Nothing if it is not there. A link is not followed: it would be somebody else's text under this name.
Result<std::optional<std::string>> read_plain_file(const fs::path& path) {
    const Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
    if (!file && (errno == ENOENT || errno == ENOTDIR)) return std::optional<std::string>();
    if (!file && errno == ELOOP) return fail(Kind::invalid, "{}: it is a link, which is not followed", path.string());
    if (!file) return fail_errno(Kind::invalid, path.string());
    struct stat found{};
    if (::fstat(file.get(), &found) != 0 || !S_ISREG(found.st_mode)) return fail(Kind::invalid, "{}: it is no plain file", path.string());
    if (static_cast<size_t>(found.st_size) > settings_bytes_max) return fail(Kind::invalid, "{}: it is longer than {} bytes", path.string(), settings_bytes_max);
    std::string text(settings_bytes_max + 1, '\0');
    const ssize_t count = ::pread(file.get(), text.data(), text.size(), 0);
    if (count < 0) return fail_errno(Kind::invalid, path.string());
    text.resize(static_cast<size_t>(count));
    return std::optional(std::move(text));
}

class Reader {
  public:
    Reader(Settings& settings, bool may_loosen) : settings_(settings), may_loosen_(may_loosen) {}

    void read(const fs::path& path, const std::string& text) {
        file_ = path.string();
        auto table = parse_toml(text, file_);
        if (!table) return broken(table.error().message);
        for (const auto& [key, node] : *table) {
            if (key.str() != "permissions") {
                complain(node, fmt::format("'{}' is not a table of settings{}; there is permissions", key.str(), did_you_mean(key.str(), {"permissions"})));
            } else if (const toml::table* permissions = node.as_table()) {
                read_permissions(*permissions);
            } else {
                broken_at(node, "permissions must be a table");
            }
        }
    }

    void broken(std::string what) {
        settings_.problems.push_back(std::move(what));
        settings_.is_broken = true;
    }

  private:
    void read_permissions(const toml::table& permissions) {
        for (const auto& [key, node] : permissions) {
            if (std::ranges::find(decisions, key.str()) == decisions.end()) {
                complain(node, fmt::format("'{}' is not known{}; there are allow, ask and deny", key.str(), did_you_mean(key.str(), {"allow", "ask", "deny"})));
                continue;
            }
            const toml::array* const rules = node.as_array();
            if (rules == nullptr) {
                broken_at(node, fmt::format("{} must be a list of rules", key.str()));
                continue;
            }
            for (const toml::node& rule : *rules) add(std::string(key.str()), rule);
        }
    }

    void add(const std::string& decision, const toml::node& node) {
        const auto text = node.value<std::string>();
        if (!text) return broken_at(node, "a rule must be a text");
        if (auto good = check_rule(*text); !good) return broken_at(node, good.error().message);
        store::Grant rule{.id = 0, .folder = {}, .rule = *text, .decision = decision, .by = file_, .created_at_ms = 0};
        (decision != "allow" || may_loosen_ ? settings_.rules : settings_.untrusted).push_back(std::move(rule));
    }

    void complain(const toml::node& node, std::string_view what) {
        settings_.problems.push_back(fmt::format("{}:{}: {}", file_, node.source().begin.line, what));
    }

    // What is wrong with something that may forbid: unlike an unknown key it must not be passed over.
    void broken_at(const toml::node& node, std::string_view what) { broken(fmt::format("{}:{}: {}", file_, node.source().begin.line, what)); }

    Settings& settings_;
    const bool may_loosen_;
    std::string file_;
};

// The folder whose .torpor has one of the files, and those, into `settings`.
void find_project(const fs::path& folder, Settings& settings, Reader& problems) {
    for (const fs::path& level : project_levels(folder)) {
        for (const std::string_view name : project_files) {
            const fs::path path = level / ".torpor" / name;
            auto text = read_plain_file(path);
            if (!text) problems.broken(text.error().text());
            if (text && !*text) continue;
            settings.project = level;
            if (text) settings.files.push_back({path, std::move(**text)});
        }
        if (!settings.project.empty()) return;
    }
}

Result<std::string> hash_of_files(const std::vector<SettingsFile>& files) {
    std::string all;
    for (const SettingsFile& file : files) all += fmt::format("{} {}\n{}", file.path.filename().string(), file.text.size(), file.text);
    return store::hash_of(all);
}

}  // namespace

Result<Settings> read_settings(const fs::path& folder, const fs::path& config, store::Store& store) {
    Settings settings;
    Reader own(settings, true);
    auto text = read_plain_file(config / "settings.toml");
    if (!text) own.broken(text.error().text());
    if (text && *text) own.read(config / "settings.toml", **text);

    std::error_code failed;
    const fs::path real = fs::canonical(folder, failed);
    if (failed) return settings;
    find_project(real, settings, own);
    if (settings.project.empty()) return settings;
    auto hash = hash_of_files(settings.files);
    if (!hash) return Failure(hash.error());
    settings.hash = std::move(*hash);
    auto trusted = store.read([&](store::Connection& db) { return store::trusted_hash(db, settings.project.string()); });
    if (!trusted) return Failure(trusted.error());
    settings.is_trusted = *trusted == settings.hash;
    Reader projects(settings, settings.is_trusted);
    for (const SettingsFile& file : settings.files) projects.read(file.path, file.text);
    return settings;
}

}  // namespace torpor::agent
