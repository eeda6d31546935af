#include "gpu/snapshot.hh"

#include "base/fd.hh"
#include "base/process.hh"
#include "gpu/limits.hh"

#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <set>
#include <sstream>

namespace torpor::gpu {

namespace {

namespace fs = std::filesystem;

constexpr size_t maps_bytes_max = 16 * 1024 * 1024;
constexpr size_t cpuinfo_bytes_max = 4 * 1024 * 1024;

// "file SIZE MTIME_NS PATH", or "file - - PATH" if it is gone.
std::string file_line(const std::string& path) {
    struct stat info{};
    if (::stat(path.c_str(), &info) != 0) return fmt::format("file - - {}", path);
    return fmt::format("file {} {}{:09} {}", info.st_size, info.st_mtim.tv_sec, info.st_mtim.tv_nsec, path);
}

std::string kernel_line() {
    utsname name{};
    ::uname(&name);
    return fmt::format("kernel {} {}", name.release, name.version);
}

// Model and features of the first processor: an image made with AVX-512 state needs it again.
std::string cpu_line() {
    static const std::string line = [] {
        std::string model, flags;
        std::istringstream text(read_file("/proc/cpuinfo", cpuinfo_bytes_max).value_or(""));
        for (std::string row; std::getline(text, row) && (model.empty() || flags.empty());) {
            const size_t colon = row.find(": ");
            if (colon == std::string::npos) continue;
            if (row.starts_with("model name") || row.starts_with("CPU implementer")) model = row.substr(colon + 2);
            if (row.starts_with("flags") || row.starts_with("Features")) flags = row.substr(colon + 2);
        }
        return fmt::format("cpu {} {:016x}", model, std::hash<std::string>{}(flags));
    }();
    return line;
}

int64_t clock_s() {
    return std::chrono::duration_cast<std::chrono::seconds>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// CRIU does it with a time namespace (time_namespaces(7)), as root only.
bool can_set_clocks() {
    return ::geteuid() == 0 && ::access("/proc/self/ns/time", F_OK) == 0;
}

void add_mapped_files(pid_t pid, std::set<std::string>& files) {
    std::istringstream maps(read_file(fmt::format("/proc/{}/maps", pid), maps_bytes_max).value_or(""));
    for (std::string line; std::getline(maps, line);) {
        const size_t at = line.find(" /");
        if (at == std::string::npos) continue;
        const std::string path = line.substr(at + 1);
        if (path.starts_with("/dev/") || path.starts_with("/memfd:") || path.ends_with(" (deleted)")) continue;
        files.insert(path);
    }
}

// Of a folder: all below it but hidden ones, which are git's and Hugging Face's own records; and not its own time, which a
// cache that is made there would change.
void add_named_files(const std::string& place, std::set<std::string>& files) {
    if (place.empty()) return;
    std::error_code code, ignored;
    if (!fs::is_directory(place, code)) {
        files.insert(place);
        return;
    }
    for (fs::recursive_directory_iterator at(place, code), end; !code && at != end; at.increment(code)) {
        if (at->path().filename().string().starts_with('.')) {
            if (at->is_directory(ignored)) at.disable_recursion_pending();
        } else if (at->is_regular_file(ignored) && files.size() < fingerprint_files_max) {
            files.insert(at->path());
        }
    }
}

}  // namespace

std::string command_text(const std::vector<std::string>& command_line) {
    std::string line = "command";
    for (const std::string& part : command_line) {
        line += ' ';
        for (const char c : part) {  // one line a fact, whatever an argument holds
            if (c == '\n' || c == '%' || c == ' ') {
                line += fmt::format("%{:02x}", static_cast<unsigned char>(c));
            } else {
                line += c;
            }
        }
    }
    return line;
}

std::string fact_in(const std::string& fingerprint, std::string_view fact) {
    std::istringstream lines(fingerprint);
    for (std::string line; std::getline(lines, line);) {
        if (line.starts_with(fact) && line.size() > fact.size() && line[fact.size()] == ' ') return line.substr(fact.size() + 1);
    }
    return {};
}

bool is_with_state(const Snapshot& snapshot) {
    return !fact_in(snapshot.fingerprint, "state").empty();
}

int number_in(const std::string& fingerprint, std::string_view fact) {
    return std::atoi(fact_in(fingerprint, fact).c_str());
}

std::string take_fingerprint(pid_t pid, const Model& model, const std::vector<std::string>& command_line, const std::string& criu) {
    std::string text = command_text(command_line) + "\n" + kernel_line() + "\n" + cpu_line() + "\n";
    text += fmt::format("clock {}\n", clock_s());
    text += "criu " + file_line(criu) + "\n";
    std::set<std::string> files;
    for (const pid_t member : process_tree(pid)) add_mapped_files(member, files);
    add_named_files(model.path, files);
    for (const Adapter& adapter : model.adapters) add_named_files(adapter.path, files);
    for (const std::string& file : files) text += file_line(file) + "\n";
    return text;
}

std::optional<std::string> why_clock_unfit(const std::string& fingerprint, int64_t now_s) {
    const std::string then_s = fact_in(fingerprint, "clock");
    if (then_s.empty() || std::atoll(then_s.c_str()) <= now_s) return {};
    return "the machine was started anew, and here a process cannot be given the clock that it had (that needs root and a kernel "
           "with time namespaces)";
}

std::optional<std::string> why_void(const Snapshot& snapshot, const std::vector<std::string>& command_line,
                                    const std::string& criu) {
    std::error_code code;
    if (!fs::is_directory(snapshot.path / "image", code)) return "its folder is gone";
    if (bytes_below(snapshot.path / "image") != snapshot.bytes) return "its files do not have the size they had";
    if (auto changed = why_changed(snapshot.fingerprint, command_line, criu)) return changed;
    return can_set_clocks() ? std::nullopt : why_clock_unfit(snapshot.fingerprint, clock_s());
}

std::optional<std::string> why_changed(const std::string& fingerprint, const std::vector<std::string>& command_line,
                                       const std::string& criu) {
    std::istringstream lines(fingerprint);
    for (std::string line; std::getline(lines, line);) {
        if (line.starts_with("command ")) {
            if (line != command_text(command_line)) return "the engine's arguments changed";
        } else if (line.starts_with("kernel ")) {
            if (line != kernel_line()) return "the kernel changed";
        } else if (line.starts_with("cpu ")) {
            if (line != cpu_line()) return "the processor changed";
        } else if (line.starts_with("criu ")) {
            if (line != "criu " + file_line(criu)) return "CRIU changed";
        } else if (line.starts_with("file ")) {
            const size_t path = line.find('/');
            if (path == std::string::npos || line != file_line(line.substr(path))) {
                return fmt::format("{} changed", path == std::string::npos ? "a file" : line.substr(path));
            }
        }
    }
    return {};
}

Result<void> check_cache_folder(const fs::path& cache, const fs::path& folder) {
    for (const fs::path& each : {cache, folder}) {
        struct stat info{};
        const bool is_there = ::lstat(each.c_str(), &info) == 0;
        if (is_there && S_ISLNK(info.st_mode)) {
            return fail(Kind::refused, "{} is a symbolic link; put a folder of your own there, or let XDG_CACHE_HOME or TORPOR_DIR name where it is", each.string());
        }
        // Not mended but refused: who could write or enter may have put something there, or read it.
        const mode_t others = each == folder ? 0077 : 0022;
        if (is_there && S_ISDIR(info.st_mode) && info.st_uid == ::geteuid() && (info.st_mode & others) != 0) {
            return fail(Kind::refused, "{} is open to others; look what is in it, remove what is not yours, then chmod 700 it and "
                                       "torpor daemon restart", each.string());
        }
        if (auto made = make_private_folder(each); !made) return made;
    }
    if (::access(folder.c_str(), W_OK | X_OK) != 0) {
        return fail_errno(Kind::refused, fmt::format("{} cannot be written; mend that, then torpor daemon restart", folder.string()));
    }
    return {};
}

uint64_t bytes_below(const fs::path& folder) {
    uint64_t sum = 0;
    std::error_code code;
    for (fs::recursive_directory_iterator at(folder, code), end; !code && at != end; at.increment(code)) {
        std::error_code ignored;
        if (at->is_regular_file(ignored)) sum += at->file_size(ignored);
    }
    return sum;
}

Result<void> publish(const fs::path& beside, const fs::path& place, const std::string& fingerprint) {
    std::error_code code;
    for (const auto& entry : fs::recursive_directory_iterator(beside, code)) {
        if (auto synced = sync_path(entry.path()); !synced) return synced;
        ::chmod(entry.path().c_str(), entry.is_directory() ? 0700 : 0600);
    }
    if (auto written = write_file_atomically(beside / "fingerprint", fingerprint, 0600); !written) return written;
    fs::remove_all(place, code);
    fs::rename(beside, place, code);
    if (code) return fail(Kind::internal, "cannot rename {} to {}: {}", beside.string(), place.string(), code.message());
    return sync_path(place.parent_path());
}

}  // namespace torpor::gpu
