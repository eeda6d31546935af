#include "gpu/criu_rights.hh"

#include "base/text.hh"

#include <doctest/doctest.h>

using namespace torpor;
using namespace torpor::gpu;

namespace {

constexpr std::string_view whole = "CapBnd:\t000001ffffffffff\n";
constexpr std::string_view gap = "CapBnd:\t000001fffeffffff\n";  // no cap_sys_resource
constexpr int last = 40;

std::string names_needed(std::string_view status, int ptrace_scope = 0) {
    return names_of(rights_needed(std::string(status), last, ptrace_scope));
}

// As setcap writes it: all little-endian; the effective flag, then permitted and inheritable of 32 each.
std::string attribute(std::string_view magic, std::string_view low, std::string_view high) {
    return std::string(magic) + std::string(low) + std::string(4, '\0') + std::string(high) + std::string(4, '\0');
}

}  // namespace

TEST_CASE("rights: no more are needed than the machine makes necessary") {
    CHECK(names_needed(whole) == "cap_checkpoint_restore");
    CHECK(names_needed(gap) == "cap_checkpoint_restore,cap_setpcap");
    CHECK(names_needed("CapBnd:\t000001ffffffff\n") == "cap_checkpoint_restore,cap_setpcap");
    CHECK(names_needed(whole, 1) == "cap_checkpoint_restore,cap_sys_ptrace");
    CHECK(names_needed(gap, 3) == "cap_checkpoint_restore,cap_setpcap,cap_sys_ptrace");
}

TEST_CASE("rights: what no file can mend is said") {
    const auto obstacle = [](std::string status) { return obstacle_in(status, rights_needed(status, last, 0)).value_or(""); };
    const std::string well = "NoNewPrivs:\t0\nSeccomp:\t0\nSeccomp_filters:\t0\n";
    CHECK(obstacle(std::string(gap) + well) == "");
    CHECK(obstacle(std::string(whole)) == "");  // an older kernel says less
    CHECK(obstacle("CapBnd:\t00000000a80425fb\n" + well).find("needs cap_checkpoint_restore here") != std::string::npos);
    CHECK(obstacle(std::string(gap) + "NoNewPrivs:\t1\nSeccomp:\t0\n").find("no_new_privs") != std::string::npos);
    CHECK(obstacle(std::string(gap) + "NoNewPrivs:\t0\nSeccomp:\t2\n").find("seccomp filter") != std::string::npos);
}

TEST_CASE("rights: a file's attribute") {
    const std::string_view effective("\1\0\0\2", 4), inactive("\0\0\0\2", 4), with_namespace("\1\0\0\3", 4);
    const std::string_view setpcap("\0\1\0\0", 4), restore("\0\1\0\0", 4), none("\0\0\0\0", 4);
    CHECK(names_of(rights_in(attribute(effective, setpcap, restore))) == "cap_checkpoint_restore,cap_setpcap");
    CHECK(names_of(rights_in(attribute(effective, none, restore))) == "cap_checkpoint_restore");
    CHECK(rights_in(attribute(inactive, setpcap, restore)) == 0);
    CHECK(rights_in(attribute(with_namespace, setpcap, restore) + std::string(4, '\0')) == 0);
    CHECK(rights_in("") == 0);
    CHECK(rights_in(std::string(200, '\1')) == 0);
}

TEST_CASE("rights: the command and what it gives") {
    const auto plain = grant_for("/d/criu", "/p/criu-ann", "ann", rights_needed(std::string(whole), last, 0));
    CHECK(plain.command ==
          "sudo sh -c 'install -D -o root -g ann -m 0750 /d/criu /p/criu-ann && setcap cap_checkpoint_restore+ep /p/criu-ann'");
    CHECK(plain.gives.find("the group ann") != std::string::npos);
    CHECK(plain.gives.find("no right over what other users run") != std::string::npos);
    CHECK(plain.gives.find("setuid") == std::string::npos);
    const auto all = grant_for("/my data/it's", "/p/criu-7", "7", rights_needed(std::string(gap), last, 1));
    CHECK(all.command == R"(sudo sh -c 'install -D -o root -g 7 -m 0750 '\''/my data/it'\''\'\'''\''s'\'' /p/criu-7 && )"
                         R"(setcap cap_checkpoint_restore,cap_setpcap,cap_sys_ptrace+ep /p/criu-7')");
    CHECK(all.gives.find("as good as being root") != std::string::npos);
    CHECK(all.gives.find("setuid") != std::string::npos);
    CHECK(all.gives.find("no right over") == std::string::npos);
    const auto again = grant_for("/p/criu-7", "/p/criu-7", "7", rights_needed(std::string(whole), last, 0));
    CHECK(again.command == "sudo sh -c 'setcap cap_checkpoint_restore+ep /p/criu-7'");
}

TEST_CASE("text: a word for a shell") {
    CHECK(shell_quoted("/usr/bin/x-1_2.3") == "/usr/bin/x-1_2.3");
    CHECK(shell_quoted("") == "''");
    CHECK(shell_quoted("a b;$c") == "'a b;$c'");
    CHECK(shell_quoted("it's") == R"('it'\''s')");
}
