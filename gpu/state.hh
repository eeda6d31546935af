// The states of a worker and the one table of legal moves between them.
#pragma once

#include <string_view>

namespace torpor::gpu {

enum class State {
    stopped,     // no process and no valid image: the next start is cold
    starting,    // the engine loads
    ready,       // it could answer now, nobody asks
    busy,        // at least one lease is held
    suspending,  // being put to sleep, or ended
    asleep,      // no process; a valid image wakes it
    resuming,    // being thawed
    failed,      // did not start; waits for its backoff to pass
};

std::string_view name_of(State state);

// Whether a worker in `from` may come to be in `to`. Staying is not a move.
bool may_move(State from, State to);

// Whether there is a process, or one is coming or going.
bool has_process(State state);

}  // namespace torpor::gpu
