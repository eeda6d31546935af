#include "base/process.hh"

#include <doctest/doctest.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

namespace {

using torpor::PidUse;
using torpor::use_of;

void await_end(pid_t pid) {
    siginfo_t info{};
    ::waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOWAIT);  // leaves it unreaped
}

}  // namespace

TEST_CASE("a number is not free before all of its session are reaped") {
    ::prctl(PR_SET_CHILD_SUBREAPER, 1);  // the member below becomes our child
    int ends[2];
    REQUIRE(::pipe(ends) == 0);
    const pid_t leader = ::fork();
    if (leader == 0) {
        ::setsid();
        const pid_t member = ::fork();
        if (member == 0) {
            for (;;) ::pause();
        }
        (void)!::write(ends[1], &member, sizeof member);
        ::_exit(0);
    }
    pid_t member = 0;
    REQUIRE(::read(ends[0], &member, sizeof member) == sizeof member);
    ::close(ends[0]);
    ::close(ends[1]);

    await_end(leader);
    CHECK(use_of(leader) == PidUse::ended);
    CHECK(use_of(member) == PidUse::taken);
    REQUIRE(::waitpid(leader, nullptr, 0) == leader);
    CHECK(use_of(leader) == PidUse::taken);  // by the session that it led
    ::kill(member, SIGKILL);
    await_end(member);
    CHECK(use_of(leader) == PidUse::ended);
    REQUIRE(::waitpid(member, nullptr, 0) == member);
    CHECK(use_of(leader) == PidUse::free);
    CHECK(use_of(member) == PidUse::free);
    ::prctl(PR_SET_CHILD_SUBREAPER, 0);
}
