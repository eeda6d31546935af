// The memory that all workers share: who has some, who waits for some, and who must leave for them.
//
// A record that starts and ends nothing and has no clock: the pool tells it what happened (pool_room.cc), asks for a
// plan, and does what the plan says. So does the simulation in tests/unit/room_simulation_test.cc.
//
// What holds: nobody is let in beyond the budget. Those who wait are let in by arrival, so nobody waits for ever while
// others come and go: who waits longest is first, and idle workers must leave for it, after `room_patience` busy ones
// as well, once their requests are done. Pinned ones never.
//
// Who must leave is chosen as by GreedyDual-Size-Frequency (L. Cherkasova, "Improving WWW Proxies Performance with
// Greedy-Dual-Size-Frequency Caching Policy", 1998): least (time to bring it back) x (how often it is wanted) / bytes;
// but how often is told by the time since it was wanted last and the gaps before that (Demand), not by an inflated
// count, since a wait in milliseconds can be compared with what people feel.
#pragma once

#include "gpu/limits.hh"

#include <chrono>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace torpor::gpu {

using Clock = std::chrono::steady_clock;

// How soon a model will be wanted again, told by when it was wanted before.
class Demand {
  public:
    void note(Clock::time_point now);
    // The expected time from `now` to the next request.
    std::chrono::duration<double> next(Clock::time_point now) const;

  private:
    std::optional<Clock::time_point> last_;
    double pause_s_ = 8;           // within a conversation: a guess, then the mean, recent ones weighing more
    std::optional<double> gap_s_;  // between conversations: the same
};

class Room {
  public:
    // The budget in bytes; nothing: no limit.
    void set_budget(std::optional<uint64_t> bytes) { budget_ = bytes; }
    std::optional<uint64_t> budget() const { return budget_; }
    uint64_t taken() const { return taken_; }
    uint64_t free() const { return budget_ && *budget_ > taken_ ? *budget_ - taken_ : 0; }

    // Wants to be let in; waits in line until a plan says so. Again while it waits: nothing changes.
    void ask(const std::string& model, uint64_t bytes, Clock::time_point now);
    void leave_line(const std::string& model);
    bool is_in_line(const std::string& model) const;
    bool has_line() const { return !line_.empty(); }
    std::vector<std::string> line() const;

    // Has this much, let in or not: a worker that was taken back, or was measured to have grown.
    void set(const std::string& model, uint64_t bytes);
    uint64_t taken_by(const std::string& model) const;
    // Its processes are gone.
    void give_back(const std::string& model);

    enum class Use {
        idle,
        busy,     // requests are under way
        leaving,  // is being put to sleep or ended: its memory comes back by itself
        coming,   // starts, or is being thawed
        pinned,
    };
    // A worker that has memory, as it is now.
    struct Occupant {
        std::string model;
        Use use = Use::idle;
        double loss = 0;  // what it costs to lose it; loss_of()
    };

    struct Plan {
        std::vector<std::string> enter;     // let in: their memory is taken, they start now
        std::vector<std::string> leave;     // are to be put to sleep, busy ones once they are idle
        std::vector<std::string> hopeless;  // no longer in line: they do not fit beside the pinned ones
        std::optional<Clock::time_point> look_again;  // busy ones may be told to leave then
    };
    // What to do now. The same answer twice lets nobody in twice, but names those who leave again until they are
    // `leaving`.
    Plan plan(const std::vector<Occupant>& occupants, Clock::time_point now);

    // Bytes that could be had for a model at the most, with these pinned ones.
    uint64_t most_for(const std::vector<Occupant>& occupants) const;

  private:
    struct Waiting {
        std::string model;
        uint64_t bytes;
        Clock::time_point since;
    };
    void choose(const std::vector<Occupant>& occupants, Use use, uint64_t& lacking, std::vector<std::string>& leave) const;

    std::optional<uint64_t> budget_;
    std::map<std::string, uint64_t> occupied_;  // by model
    uint64_t taken_ = 0;                        // the sum of it
    std::deque<Waiting> line_;
};

// What it costs to lose a worker for a while: the expected waiting for its return, per second and gigabyte.
double loss_of(std::chrono::milliseconds wake, std::chrono::duration<double> next, uint64_t bytes);

// What [pool] memory = "auto" means: four fifths of what the machine has, or of what a cgroup above allows this process.
// The rest is for everything else, and for the page cache. Reads /proc and /sys.
uint64_t automatic_memory_budget();

}  // namespace torpor::gpu
