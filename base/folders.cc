#include "base/folders.hh"

#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdlib>

namespace torpor {

namespace {

using std::filesystem::path;

// An environment variable that holds an absolute path; XDG says that relative ones are to be ignored.
path absolute_from(const char* name) {
    const char* value = std::getenv(name);
    if (value == nullptr || value[0] != '/') return {};
    return path(value).lexically_normal();
}

bool is_ours(const path& folder) {
    struct stat info{};
    return ::stat(folder.c_str(), &info) == 0 && S_ISDIR(info.st_mode) && info.st_uid == ::geteuid();
}

Result<path> xdg(const char* name, const char* below_home) {
    if (path set = absolute_from(name); !set.empty()) return set / "torpor";
    const path home = absolute_from("HOME");
    if (home.empty()) return fail(Kind::invalid, "neither {} nor HOME is set; set TORPOR_DIR to a folder of your own", name);
    return home / below_home / "torpor";
}

}  // namespace

Result<Folders> Folders::from_environment() {
    Folders folders;
    const char* one = std::getenv("TORPOR_DIR");
    if (one != nullptr && one[0] != '\0') {
        const path root = std::filesystem::absolute(one).lexically_normal();
        folders.config = folders.state = folders.runtime = root;
        folders.cache = root / "cache";
    } else {
        auto config = xdg("XDG_CONFIG_HOME", ".config");
        auto state = xdg("XDG_STATE_HOME", ".local/state");
        auto cache = xdg("XDG_CACHE_HOME", ".cache");
        if (!config || !state || !cache) return Failure((config ? state ? cache : state : config).error());
        folders.config = *config;
        folders.state = *state;
        folders.cache = *cache;
        const path runtime = absolute_from("XDG_RUNTIME_DIR");
        folders.runtime = !runtime.empty() && is_ours(runtime) ? runtime / "torpor" : folders.state;
    }
    folders.data = absolute_from("TORPOR_DATA");
    if (folders.data.empty()) {
        auto data = xdg("XDG_DATA_HOME", ".local/share");
        if (!data) return Failure(data.error());
        folders.data = *data;
    }
    if (folders.socket().string().size() >= sizeof(sockaddr_un::sun_path)) {
        return fail(Kind::invalid, "{} is too long for a socket's path; set TORPOR_DIR to a shorter folder",
                    folders.socket().string());
    }
    return folders;
}

}  // namespace torpor
