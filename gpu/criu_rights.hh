// What CRIU needs where torpord does not run as root. The rights lie on a program file (capabilities(7), setcap(8)):
// a copy of criu that root installs for the group of the user. No more is asked for than this machine makes necessary:
// - cap_checkpoint_restore always: to give a process the pid that it had;
// - cap_setpcap where the bounding set lacks a capability, as in containers: a thawed process is to lack it, too, and
//   CRIU waits for ever when it may not take it away;
// - cap_sys_ptrace only where Yama keeps a user from tracing processes of their own. It is as good as being root.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

namespace torpor::gpu {

using Capabilities = uint64_t;  // bit N: the capability of number N

// For root to run, and what that gives to whom, in one sentence.
struct CriuGrant {
    std::string command;
    std::string gives;
};

// The place of root's copy for the group that this process has. Not below a folder of the user's, where links would
// lead root's hand.
std::filesystem::path granted_criu();

// Why no file can have the rights here; asked before lack_of_rights().
std::optional<std::string> obstacle_to_rights();

// The rights that `criu` lacks, named: "cap_setpcap, cap_sys_ptrace"; empty if it has all.
std::string lack_of_rights(const std::string& criu);

// How a copy of `criu` gets the rights.
CriuGrant grant_for(const std::string& criu);

// Whether a process is of our user and has rights that we have not, as criu with its own, and what it is about to make.
// (Who has less may not look at /proc/PID/exe.)
bool has_more_rights(pid_t pid);

// Parts of these, for tests. `status`: the text of /proc/self/status; `last`: the highest capability that the kernel
// knows; `ptrace_scope`: Yama's, 0 without it.
Capabilities rights_needed(const std::string& status, int last, int ptrace_scope);
std::optional<std::string> obstacle_in(const std::string& status, Capabilities needed);
// What a file's attribute security.capability gives; 0 if it is not well formed or for a user namespace.
Capabilities rights_in(std::string_view attribute);
std::string names_of(Capabilities capabilities);
CriuGrant grant_for(const std::string& criu, const std::filesystem::path& place, const std::string& group, Capabilities needed);

}  // namespace torpor::gpu
