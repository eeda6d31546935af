// torpor-launch: the last step before an engine runs.
//
//     torpor-launch [--open-files N] [--no-io-uring] [--no-amx] -- COMMAND [ARGUMENT]...
//
// libuv makes the session and the descriptors but has no hook before exec; this sets what must be set in
// the child itself: no other descriptor of the daemon (CRIU cannot dump half a connection), the umask, the soft limit of open files (the daemon raised its own, and what uses select()
// breaks beyond 1024), and for engines whose row says so what answers with ENOSYS
// - io_uring_setup, because CRIU cannot dump a process that holds an io_uring;
// - the request for AMX, because CRIU does not ask for it again on behalf of a thawed process, whose next
//   tile instruction would then kill it (SIGILL). Engines fall back to AVX-512.
// Root's engines get filters of the kernel. To dump a filtered process takes CAP_SYS_ADMIN, which a plain user's CRIU
// does not have: their engines get a library preloaded (refuse.cc), which lies beside this program.
// Then it becomes the command, with the same pid.
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
#include <string>
#include <string_view>

// For this process and all that it starts.
static void preload_refusal(const char* variable) {
    setenv(variable, "1", 1);
    char self[4096];
    const ssize_t length = readlink("/proc/self/exe", self, sizeof self);
    if (length <= 0) return;
    const std::string folder(self, std::string_view(self, static_cast<size_t>(length)).rfind('/') + 1);
    const std::string library = folder + "libtorpor-refuse.so";
    if (access(library.c_str(), R_OK) != 0) return;  // a processor that refuse.cc does not know
    const char* others = getenv("LD_PRELOAD");
    if (others != nullptr && std::strstr(others, library.c_str()) != nullptr) return;
    setenv("LD_PRELOAD", others == nullptr ? library.c_str() : (library + ":" + others).c_str(), 1);
}

static void filter_io_uring() {
    sock_filter program[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    const sock_fprog filter{sizeof program / sizeof program[0], program};
    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter, 0, 0);
}

static void filter_amx() {
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
    const bool is_root = geteuid() == 0;
    syscall(SYS_close_range, 3U, ~0U, 0U);  // what a library of the daemon opened without care
    int i = 1;
    for (; i < argc && std::string_view(argv[i]) != "--"; ++i) {
        if (std::string_view(argv[i]) == "--no-io-uring") {
            is_root ? filter_io_uring() : preload_refusal("TORPOR_NO_IO_URING");
            continue;
        }
        if (std::string_view(argv[i]) == "--no-amx") {
            is_root ? filter_amx() : preload_refusal("TORPOR_NO_AMX");
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
