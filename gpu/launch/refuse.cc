// libtorpor-refuse.so: preloaded into the engines of a plain user, it answers ENOSYS to what TORPOR_NO_IO_URING and
// TORPOR_NO_AMX name, where root's engines have a filter of the kernel (main.cc says why). It stands in front of libc's
// syscall(), through which libuv and ggml ask; what holds the instruction itself, as liburing and static programs do,
// is not met. It needs no library, so that it fits engines with a libc of their own.
#include <sys/syscall.h>

#include <cerrno>
#include <cstdarg>
#include <cstdlib>

namespace {

bool is_refused(long number, [[maybe_unused]] long first) {
    if (number == SYS_io_uring_setup) return std::getenv("TORPOR_NO_IO_URING") != nullptr;
#ifdef __x86_64__
    constexpr int arch_req_xcomp_perm = 0x1023;  // asm/prctl.h of newer kernels
    if (number == SYS_arch_prctl && static_cast<int>(first) == arch_req_xcomp_perm) return std::getenv("TORPOR_NO_AMX") != nullptr;
#endif
    return false;
}

long call(long number, const long (&a)[6]) {
#if defined(__x86_64__)
    long result = number;
    register long r10 asm("r10") = a[3];
    register long r8 asm("r8") = a[4];
    register long r9 asm("r9") = a[5];
    asm volatile("syscall" : "+a"(result) : "D"(a[0]), "S"(a[1]), "d"(a[2]), "r"(r10), "r"(r8), "r"(r9) : "rcx", "r11", "memory");
    return result;
#elif defined(__aarch64__)
    register long x8 asm("x8") = number;
    register long x0 asm("x0") = a[0];
    register long x1 asm("x1") = a[1];
    register long x2 asm("x2") = a[2];
    register long x3 asm("x3") = a[3];
    register long x4 asm("x4") = a[4];
    register long x5 asm("x5") = a[5];
    asm volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
    return x0;
#else
#error "how a system call is made on this processor is not known here"
#endif
}

}  // namespace

extern "C" __attribute__((visibility("default"))) long syscall(long number, ...) {
    long a[6];
    va_list rest;
    va_start(rest, number);
    for (long& argument : a) argument = va_arg(rest, long);
    va_end(rest);
    constexpr long errors = -4096;  // what the kernel answers above this is an error
    const long result = is_refused(number, a[0]) ? -ENOSYS : call(number, a);
    if (result >= 0 || result <= errors) return result;
    errno = static_cast<int>(-result);
    return -1;
}
