#include "gpu/ownership.hh"

#include "base/fd.hh"
#include "base/process.hh"
#include "gpu/criu_rights.hh"
#include "gpu/probe.hh"

#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <sstream>

namespace torpor::gpu {

namespace {

namespace fs = std::filesystem;

constexpr size_t environ_bytes_max = 4 * 1024 * 1024;
constexpr size_t command_bytes_max = 256 * 1024;
constexpr size_t tcp_table_bytes_max = 16 * 1024 * 1024;

// The inode of the socket that listens on this port of 127.0.0.1 or of every address; 0 if there is none.
uint64_t listening_inode(int port) {
    std::istringstream lines(read_file("/proc/net/tcp", tcp_table_bytes_max).value_or(""));
    for (std::string line; std::getline(lines, line);) {
        std::istringstream words(line);
        std::string number, local, remote, state, skipped;
        uint64_t inode = 0;
        words >> number >> local >> remote >> state;
        for (int i = 0; i < 5; ++i) words >> skipped;  // queues, timer, retransmits, uid, timeout
        words >> inode;
        constexpr std::string_view listening = "0A";
        const bool is_ours = local == fmt::format("0100007F:{:04X}", port) || local == fmt::format("00000000:{:04X}", port);
        if (words && is_ours && state == listening) return inode;
    }
    return 0;
}

bool holds_socket(pid_t pid, uint64_t inode) {
    const std::string wanted = fmt::format("socket:[{}]", inode);
    std::error_code code;
    for (fs::directory_iterator at(fmt::format("/proc/{}/fd", pid), code), end; !code && at != end; at.increment(code)) {
        std::error_code ignored;
        if (fs::read_symlink(at->path(), ignored) == wanted) return true;
    }
    return false;
}

}  // namespace

std::string random_token() {
    std::array<unsigned char, 16> bytes{};
    (void)!::getrandom(bytes.data(), bytes.size(), 0);
    std::string text;
    for (const unsigned char byte : bytes) text += fmt::format("{:02x}", byte);
    return text;
}

std::string token_of(pid_t pid) {
    const std::string environment = '\0' + read_file(fmt::format("/proc/{}/environ", pid), environ_bytes_max).value_or("");
    const std::string name = fmt::format("{}{}=", '\0', token_variable);
    const size_t at = environment.find(name);
    if (at == std::string::npos) return {};
    const size_t start = at + name.size();
    return environment.substr(start, environment.find('\0', start) - start);
}

bool is_listener(const Endpoint& endpoint, const std::vector<pid_t>& pids) {
    if (endpoint.socket.empty()) {
        const uint64_t inode = listening_inode(endpoint.port);
        return inode != 0 && std::ranges::any_of(pids, [inode](pid_t pid) { return holds_socket(pid, inode); });
    }
    auto connection = connect_to(endpoint);
    ucred peer{};  // of the process that called listen()
    socklen_t size = sizeof peer;
    return connection && ::getsockopt(connection->get(), SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 &&
           std::ranges::find(pids, peer.pid) != pids.end();
}

bool writes_into(pid_t pid, const fs::path& folder) {
    std::error_code code;
    const fs::path file = fs::read_symlink(fmt::format("/proc/{}/fd/1", pid), code);
    return !code && fs::equivalent(file.parent_path(), folder, code) && !code;  // `folder` may lead over links
}

std::vector<pid_t> criu_at_work(const std::string& criu, const fs::path& folder, const std::vector<pid_t>& pids) {
    std::vector<pid_t> found;
    if (criu.empty()) return found;
    const std::string program = criu + '\0';
    const std::string place = '\0' + folder.string() + '/';
    for (const pid_t pid : all_processes()) {
        const std::string command = read_file(fmt::format("/proc/{}/cmdline", pid), command_bytes_max).value_or("");
        if (command.starts_with(program) && command.find(place) != std::string::npos) found.push_back(pid);
    }
    for (const pid_t pid : pids) {
        std::error_code code;
        const bool is_criu = fs::equivalent(fmt::format("/proc/{}/exe", pid), criu, code) && !code;
        if (!is_criu && !has_more_rights(pid)) continue;
        for (const pid_t member : process_tree(pid)) found.push_back(member);
    }
    return found;
}

}  // namespace torpor::gpu
