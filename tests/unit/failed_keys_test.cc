#include "daemon/failed_keys.hh"

#include "daemon/limits.hh"

#include <doctest/doctest.h>

using namespace torpor;
using namespace std::chrono_literals;

namespace {

struct Door {
    FailedKeys failed;
    FailedKeys::Clock::time_point now{1h};

    Error knock(const std::string& address = "127.0.0.1") { return failed.refuse(address, "GET /v1/models", now); }
};

}  // namespace

TEST_CASE("the first wrong keys are only wrong; more of them must wait, twice as long each time, up to a limit") {
    Door door;
    for (uint64_t i = 0; i < failed_keys_free; ++i) CHECK(door.knock().kind == Kind::unauthorized);
    int expected = static_cast<int>(failed_key_pause_first.count());
    for (int i = 0; i < 20; ++i) {
        const Error error = door.knock();
        CHECK(error.kind == Kind::busy);
        CHECK(error.limit == "failed_keys");
        CHECK(error.retry_after_s == expected);
        expected = std::min(2 * expected, static_cast<int>(failed_key_pause_max.count()));
    }
    CHECK(door.knock("127.0.0.2").kind == Kind::unauthorized);
    CHECK(door.failed.total() == failed_keys_free + 21);
}

TEST_CASE("who waited as long as was said hears about the key again, and who was quiet for long starts anew") {
    Door door;
    for (uint64_t i = 0; i < failed_keys_free; ++i) door.knock();
    const Error early = door.knock();
    REQUIRE(early.kind == Kind::busy);
    door.now += std::chrono::seconds(early.retry_after_s);
    CHECK(door.knock().kind == Kind::unauthorized);
    CHECK(door.knock().retry_after_s > early.retry_after_s);
    door.now += failed_key_memory + 1s;
    for (uint64_t i = 0; i < failed_keys_free; ++i) CHECK(door.knock().kind == Kind::unauthorized);
}

TEST_CASE("only so many addresses are remembered, and the one longest quiet is forgotten first") {
    Door door;
    const auto address = [](size_t i) { return "address " + std::to_string(i); };
    for (size_t i = 0; i < failed_key_addresses_max; ++i) {
        for (uint64_t each = 0; each < failed_keys_free; ++each) door.knock(address(i));
        door.now += 1ms;
    }
    CHECK(door.failed.addresses() == failed_key_addresses_max);
    door.knock("another one");
    CHECK(door.failed.addresses() == failed_key_addresses_max);
    door.now -= 500ms;  // within everybody's pause
    CHECK(door.knock(address(failed_key_addresses_max - 1)).kind == Kind::busy);
    CHECK(door.knock(address(0)).kind == Kind::unauthorized);
    door.now += failed_key_memory + 10s;
    door.knock("a last one");
    CHECK(door.failed.addresses() == 1);
}
