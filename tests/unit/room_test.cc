// Who gets memory, and who must leave for them.
#include "gpu/room.hh"

#include <doctest/doctest.h>

using namespace torpor::gpu;
using namespace std::chrono_literals;
using Use = Room::Use;
using Names = std::vector<std::string>;

namespace {

Room room_of(uint64_t bytes) {
    Room room;
    room.set_budget(bytes);
    return room;
}

}  // namespace

TEST_CASE("who fits is let in, by arrival") {
    Room room = room_of(100);
    const auto now = Clock::now();
    room.ask("a", 60, now);
    room.ask("b", 50, now);
    room.ask("c", 10, now);
    room.ask("a", 60, now);
    CHECK(room.line() == Names{"a", "b", "c"});
    CHECK(room.plan({}, now).enter == Names{"a"});
    CHECK(room.taken() == 60);
    CHECK(room.line() == Names{"b", "c"});  // c would fit, but b came first
    room.give_back("a");
    CHECK(room.plan({}, now).enter == Names{"b", "c"});
    CHECK(room.free() == 40);
}

TEST_CASE("idle ones leave, those first whose loss is least, and no more than needed") {
    Room room = room_of(100);
    const auto now = Clock::now();
    room.set("small", 10);
    room.set("large", 60);
    room.set("dear", 30);
    room.ask("new", 50, now);
    std::vector<Room::Occupant> occupants{{"small", Use::idle, 1}, {"large", Use::idle, 2}, {"dear", Use::idle, 3}};
    auto plan = room.plan(occupants, now);
    CHECK(plan.enter.empty());
    CHECK(plan.leave == Names{"large"});  // small is cheaper, but large has to go anyway
    occupants[1].use = Use::leaving;
    CHECK(room.plan(occupants, now).leave.empty());
    room.give_back("large");
    CHECK(room.plan({occupants[0], occupants[2]}, now).enter == Names{"new"});
}

TEST_CASE("busy ones leave only after some patience, pinned ones never") {
    Room room = room_of(100);
    const auto now = Clock::now();
    room.set("idle", 20);
    room.set("busy", 50);
    room.set("pinned", 30);
    room.ask("new", 60, now);
    const std::vector<Room::Occupant> occupants{{"idle", Use::idle, 1}, {"busy", Use::busy, 1}, {"pinned", Use::pinned, 0}};
    auto plan = room.plan(occupants, now);
    CHECK(plan.leave.empty());  // the idle one alone is no help
    REQUIRE(plan.look_again);
    CHECK(*plan.look_again == now + room_patience);
    CHECK(room.plan(occupants, *plan.look_again).leave == Names{"idle", "busy"});
    room.leave_line("new");
    CHECK(room.plan(occupants, *plan.look_again).leave.empty());
}

TEST_CASE("what cannot fit beside the pinned ones is told so, and does not stop the line") {
    Room room = room_of(100);
    const auto now = Clock::now();
    room.set("pinned", 30);
    room.ask("huge", 80, now);
    room.ask("fits", 70, now);
    const auto plan = room.plan({{"pinned", Use::pinned, 0}}, now);
    CHECK(plan.hopeless == Names{"huge"});
    CHECK(plan.enter == Names{"fits"});
}

TEST_CASE("who grew beyond the budget makes others leave, with nobody in line") {
    Room room = room_of(100);
    room.set("grown", 80);
    room.set("idle", 40);
    CHECK(room.plan({{"grown", Use::busy, 0}, {"idle", Use::idle, 9}}, Clock::now()).leave == Names{"idle"});
    room.set_budget(std::nullopt);
    CHECK(room.plan({{"grown", Use::busy, 0}, {"idle", Use::idle, 9}}, Clock::now()).leave.empty());
}

TEST_CASE("a model that is wanted often is expected sooner, and later the longer it is not") {
    const auto start = Clock::now();
    Demand often, rarely, never;
    for (int i = 0; i < 10; ++i) often.note(start + i * 60s);
    rarely.note(start);
    rarely.note(start + 540s);
    CHECK(often.next(start + 600s) < rarely.next(start + 600s));
    CHECK(often.next(start + 1h) > often.next(start + 600s));
    CHECK(rarely.next(start + 541s) < 10s);  // its conversation goes on
    CHECK(never.next(start).count() >= 60);
    CHECK(loss_of(1s, 10s, 1'000'000'000) > loss_of(1s, 20s, 1'000'000'000));
    CHECK(loss_of(2s, 10s, 1'000'000'000) > loss_of(1s, 10s, 1'000'000'000));
    CHECK(loss_of(1s, 10s, 1'000'000'000) > loss_of(1s, 10s, 2'000'000'000));
}
