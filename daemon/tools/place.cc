#include "daemon/tools/place.hh"

#include "base/text.hh"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <vector>

namespace torpor::tools {

namespace fs = std::filesystem;

namespace {

constexpr mode_t folder_mode = 0755;
constexpr size_t path_bytes_max = 4096;  // PATH_MAX
constexpr size_t names_looked_at_max = 2'000;  // for the nearest one

bool is_below(const fs::path& path, const fs::path& folder) {
    const auto [in_folder, in_path] = std::mismatch(folder.begin(), folder.end(), path.begin(), path.end());
    return in_folder == folder.end() || (std::next(in_folder) == folder.end() && in_folder->empty());
}

// The keys of the environment of whoever runs there, the daemon's among them.
bool is_environment(const fs::path& real) {
    return is_below(real, "/proc") && (real.filename() == "environ" || real.filename() == "mem");
}

std::string did_you_mean_there(const fs::path& real) {
    std::vector<std::string> names;
    std::error_code failed;
    for (fs::directory_iterator at(real.parent_path(), failed), end; !failed && at != end && names.size() < names_looked_at_max; at.increment(failed)) {
        names.push_back(at->path().filename().string());
    }
    return did_you_mean(real.filename().string(), names);
}

int open_beneath(int folder, const char* path, int flags, mode_t mode) {
    open_how how{};
    how.flags = static_cast<uint64_t>(flags | O_CLOEXEC);
    how.mode = (flags & O_CREAT) != 0 ? mode : 0;
    how.resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS;
    return static_cast<int>(::syscall(SYS_openat2, folder, path, &how, sizeof how));
}

// Where everything of this call begins, and the path from there.
struct Base {
    Fd folder;
    fs::path rest;
};

Result<Base> base_of(const Place& place, const agent::ToolContext& context) {
    if (!place.is_inside && !context.may_leave_folder) {
        return fail(Kind::refused, "{} is outside of the session's folder, and this call was not allowed to leave it", place.shown);
    }
    const fs::path start = place.is_inside ? place.root : fs::path("/");
    Base base{Fd(::open(start.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC)), place.real.lexically_relative(start)};
    if (!base.folder) return fail_errno(Kind::invalid, fmt::format("cannot open {}", start.string()));
    return base;
}

Failure fail_open(const Place& place) {
    const int number = errno;
    if (number == ENOENT) return fail(Kind::not_found, "there is no {}{}", place.shown, did_you_mean_there(place.real));
    if (number == EXDEV || number == ELOOP) {
        return fail(Kind::refused, "{} leads out of the session's folder by a link that was made just now", place.shown);
    }
    errno = number;
    return fail_errno(Kind::invalid, fmt::format("cannot open {}", place.shown));
}

}  // namespace

Result<Place> locate(std::string_view path, const agent::ToolContext& context) {
    if (path.empty() || path.size() > path_bytes_max || path.find('\0') != std::string_view::npos) {
        return fail(Kind::invalid, "'path' must be a file's path, of at most {} bytes", path_bytes_max);
    }
    fs::path wanted(path);
    if (const auto home = context.environment.find("HOME"); path.starts_with("~/") && home != context.environment.end()) {
        wanted = fs::path(home->second) / path.substr(2);
    }
    std::error_code failed;
    Place place;
    place.root = fs::canonical(context.folder, failed);
    if (failed) return fail(Kind::not_found, "the session's folder {} is not there: {}", context.folder.string(), failed.message());
    place.real = fs::weakly_canonical(place.root / wanted, failed);
    if (failed) return fail(Kind::invalid, "cannot follow {}: {}", path, failed.message());
    if (!place.real.has_filename()) place.real = place.real.parent_path();  // a slash at its end
    place.is_inside = is_below(place.real, place.root);
    place.shown = place.is_inside ? place.real.lexically_relative(place.root).string() : place.real.string();
    for (const fs::path& hidden : context.hidden) {
        if (is_below(place.real, fs::weakly_canonical(hidden, failed))) {
            return fail(Kind::refused, "{} is one of Torpor's own folders, which no tool may touch", place.real.string());
        }
    }
    if (is_environment(place.real)) return fail(Kind::refused, "{} may hold keys; no tool may read it", place.real.string());
    return place;
}

bool is_guarded(const Place& place) {
    static constexpr std::array<std::string_view, 4> names{".torpor", ".mcp.json", ".claude", ".git"};
    return std::ranges::any_of(place.real, [](const fs::path& part) {
        return std::ranges::find(names, to_lower(part.string())) != names.end();  // some file systems know no case
    });
}

Result<Fd> open_at(const Place& place, const agent::ToolContext& context, int flags, mode_t mode) {
    auto base = base_of(place, context);
    if (!base) return Failure(base.error());
    Fd file(open_beneath(base->folder.get(), base->rest.c_str(), flags, mode));
    if (!file) return fail_open(place);
    return file;
}

Result<Fd> open_parent(const Place& place, const agent::ToolContext& context) {
    auto base = base_of(place, context);
    if (!base) return Failure(base.error());
    Fd folder(open_beneath(base->folder.get(), ".", O_RDONLY | O_DIRECTORY, 0));
    for (const fs::path& part : base->rest.parent_path()) {
        if (!folder) break;
        if (::mkdirat(folder.get(), part.c_str(), folder_mode) == 0) {
            // The daemon's umask takes rights that the folders of a project need.
            static_cast<void>(::fchmodat(folder.get(), part.c_str(), folder_mode, 0));
        }
        folder = Fd(open_beneath(folder.get(), part.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0));
    }
    if (!folder) return fail_errno(Kind::invalid, fmt::format("cannot make the folder of {}", place.shown));
    return folder;
}

}  // namespace torpor::tools
