#include "base/fd.hh"
#include "gpu/pressure.hh"

#include "temporary_folder.hh"

#include <arpa/inet.h>
#include <doctest/doctest.h>
#include <netinet/in.h>
#include <sys/socket.h>

using namespace torpor;

namespace {

// Out-of-band data of TCP is what else poll(2) says POLLPRI of.
struct Pair {
    Fd near, far;

    Pair() {
        const Fd door(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
        sockaddr_in address{};
        address.sin_family = AF_INET;
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        socklen_t size = sizeof address;
        auto* generic = reinterpret_cast<sockaddr*>(&address);
        REQUIRE(::bind(door.get(), generic, size) == 0);
        REQUIRE(::listen(door.get(), 1) == 0);
        REQUIRE(::getsockname(door.get(), generic, &size) == 0);
        far = Fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
        REQUIRE(::connect(far.get(), generic, size) == 0);
        near = Fd(::accept(door.get(), nullptr, nullptr));
        REQUIRE(near);
    }
};

}  // namespace

TEST_CASE("the kernel's word that memory is short is heard, each time, and other news are none") {
    EventLoop loop;
    Pair pair;
    int heard = 0;
    char byte = 0;
    const int near = pair.near.get(), far = pair.far.get();
    CHECK(::send(far, "x", 1, 0) == 1);  // not what is meant
    auto pressure = std::make_unique<gpu::Pressure>(loop, std::move(pair.near), [&] {
        while (::recv(near, &byte, 1, MSG_OOB) == 1) ++heard;
        if (heard == 1) CHECK(::send(far, "!", 1, MSG_OOB) == 1);
        if (heard == 2) loop.stop();
    });
    CHECK(::send(far, "!", 1, MSG_OOB) == 1);
    loop.run();
    CHECK(heard == 2);
    pressure.reset();
}

TEST_CASE("where the kernel tells nothing of memory, that is an error and no more") {
    EventLoop loop;
    TemporaryFolder folder;
    auto watched = gpu::Pressure::watch(loop, folder / "memory", [] {});
    REQUIRE(!watched);
    CHECK(watched.error().message.find("cannot be opened") != std::string::npos);
    CHECK(gpu::pressure_files().front() == "/proc/pressure/memory");
}
