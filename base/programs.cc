#include "base/programs.hh"

#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <vector>

namespace torpor {

Result<std::string> find_beside(const std::string& name, const std::string& build_folder) {
    namespace fs = std::filesystem;
    std::error_code code;
    const fs::path self = fs::read_symlink("/proc/self/exe", code).parent_path();
    std::vector<fs::path> places;
    if (const char* libexec = std::getenv("TORPOR_LIBEXEC")) places.emplace_back(fs::path(libexec) / name);
    places.push_back(self / name);
    for (const char* up : {"..", "../.."}) places.push_back(self / up / build_folder / name);
    for (const char* below : {"bin", "libexec/torpor", "lib/systemd/user"}) places.push_back(self / ".." / below / name);
    for (const fs::path& place : places) {
        if (::access(place.c_str(), R_OK) == 0) return fs::weakly_canonical(place, code).string();
    }
    return fail(Kind::internal, "{} is not beside this program ({}); the installation is not complete", name, self.string());
}

}  // namespace torpor
