// torpor-launch: the last step before an engine runs.
//
//     torpor-launch [--open-files N] [--no-io-uring] [--no-amx] -- COMMAND [ARGUMENT]...
//
// libuv makes the session and the descriptors but has no hook before exec; this sets what must be set in
// the child itself: the umask, the soft limit of open files (the daemon raised its own, and what uses select()
// breaks beyond 1024), and for engines whose row says so filters that answer with ENOSYS
// - io_uring_setup, because CRIU cannot dump a process that holds an io_uring;
// - the request for AMX, because CRIU does not ask for it again on behalf of a thawed process, whose next
//   tile instruction would then kill it (SIGILL). Engines fall back to AVX-512.
// Then it becomes the command, with the same pid. The filters need root or CAP_SYS_ADMIN; without either
// the command runs unfiltered.
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string_view>

static void refuse_io_uring() {
    sock_filter program[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    const sock_fprog filter{sizeof program / sizeof program[0], program};
    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter, 0, 0);
}

static void refuse_amx() {
#ifdef __x86_64__
    constexpr unsigned arch_req_xcomp_perm = 0x1023;  // asm/prctl.h of newer kernels
    sock_filter program[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_arch_prctl, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, args)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, arch_req_xcomp_perm, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    const sock_fprog filter{sizeof program / sizeof program[0], program};
    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter, 0, 0);
#endif
}

static void limit_open_files(rlim_t count) {
    rlimit limit{};
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
    limit.rlim_cur = count < limit.rlim_max ? count : limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

int main(int argc, char** argv) {
    int i = 1;
    for (; i < argc && std::string_view(argv[i]) != "--"; ++i) {
        if (std::string_view(argv[i]) == "--no-io-uring") {
            refuse_io_uring();
            continue;
        }
        if (std::string_view(argv[i]) == "--no-amx") {
            refuse_amx();
            continue;
        }
        if (std::string_view(argv[i]) == "--open-files" && i + 1 < argc) {
            limit_open_files(std::strtoull(argv[++i], nullptr, 10));
            continue;
        }
        std::fprintf(stderr, "torpor-launch: %s is not an option\n", argv[i]);
        return 2;
    }
    if (i + 1 >= argc) {
        std::fprintf(stderr, "usage: torpor-launch [--open-files N] [--no-io-uring] [--no-amx] -- COMMAND [ARGUMENT]...\n");
        return 2;
    }
    umask(0077);
    execvp(argv[i + 1], argv + i + 1);
    std::fprintf(stderr, "torpor-launch: cannot run %s: %s\n", argv[i + 1], std::strerror(errno));
    return 127;
}
