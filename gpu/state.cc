#include "gpu/state.hh"

#include <array>

namespace torpor::gpu {

namespace {

constexpr std::array<std::string_view, 8> names{"stopped",    "starting", "ready",    "busy",
                                                "suspending", "asleep",   "resuming", "failed"};

struct Move {
    State from, to;
};

constexpr std::array moves{
    Move{State::stopped, State::starting},     // somebody asks
    Move{State::starting, State::ready},       // it answers its readiness path
    Move{State::starting, State::suspending},  // told to stop while it loads
    Move{State::starting, State::failed},      // it died or hung
    Move{State::ready, State::busy},           // first lease
    Move{State::busy, State::ready},           // last lease released
    Move{State::ready, State::suspending},     // idle, or told to
    Move{State::busy, State::suspending},      // told to, by force
    Move{State::ready, State::asleep},         // killed from outside, the image is valid
    Move{State::busy, State::asleep},
    Move{State::ready, State::stopped},  // killed from outside, no image
    Move{State::busy, State::stopped},
    Move{State::ready, State::failed},  // dies again and again
    Move{State::busy, State::failed},
    Move{State::suspending, State::asleep},   // all processes ended, the image is valid
    Move{State::suspending, State::stopped},  // all processes ended, no image
    Move{State::suspending, State::ready},    // its state was to be kept, and could not be
    Move{State::asleep, State::resuming},     // somebody asks
    Move{State::asleep, State::stopped},      // the image became void or was removed
    Move{State::resuming, State::ready},
    Move{State::resuming, State::starting},    // the thaw failed: cold, within the same request
    Move{State::resuming, State::suspending},  // told to stop meanwhile
    Move{State::resuming, State::asleep},      // the thawed process died at once; the image is still good
    Move{State::failed, State::starting},      // the backoff has passed
    Move{State::failed, State::stopped},       // told to stop, or its file changed
};

}  // namespace

std::string_view name_of(State state) {
    return names[static_cast<size_t>(state)];
}

bool may_move(State from, State to) {
    for (const Move& move : moves) {
        if (move.from == from && move.to == to) return true;
    }
    return false;
}

bool has_process(State state) {
    return state != State::stopped && state != State::asleep && state != State::failed;
}

}  // namespace torpor::gpu
