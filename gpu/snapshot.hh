// A frozen worker on disk: a folder of CRIU images and a record of everything that must be the same at the thaw.
//
//     snapshots/NAME/            0700, renamed into place when complete
//         image/                 what CRIU wrote
//         fingerprint            text, one fact a line; format in docs/snapshots.md
#pragma once

#include "base/error.hh"
#include "gpu/engine.hh"

#include <sys/types.h>

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace torpor::gpu {

// The catalogue's row.
struct Snapshot {
    std::string model;
    std::string tier = "frozen";
    std::filesystem::path path;
    uint64_t bytes = 0;
    std::string fingerprint;
    int64_t created_at_ms = 0;
};

// What the image depends on, gathered from the live processes, `pid` and its descendants: every file that they have
// mapped (engine, libraries), those that the model names, which may have been read without being mapped, the command line,
// and the CRIU, kernel and CPU that wrote it.
std::string take_fingerprint(pid_t pid, const Model& model, const std::vector<std::string>& command_line, const std::string& criu);

// Why an image with this fingerprint cannot be thawed now; nothing if it can. Looks at each file's size
// and time of change, so it costs microseconds.
std::optional<std::string> why_void(const Snapshot& snapshot, const std::vector<std::string>& command_line,
                                    const std::string& criu);

// The same for whatever else a process of this command line has made: which fact of it does not hold any more.
std::optional<std::string> why_changed(const std::string& fingerprint, const std::vector<std::string>& command_line,
                                       const std::string& criu);

// Why timers of a process with this fingerprint would stand still where CLOCK_MONOTONIC is at `now_s`: it was further on
// when the image was made, before the machine was started anew. CRIU gives the process its clock back, so this counts
// only where it cannot; why_void() looks.
std::optional<std::string> why_clock_unfit(const std::string& fingerprint, int64_t now_s);

// What the fingerprint says of this fact: the rest of its line, empty if there is none.
std::string fact_in(const std::string& fingerprint, std::string_view fact);

// The same for a fact that is a number; 0 if there is none.
int number_in(const std::string& fingerprint, std::string_view fact);

// Whether it was made to keep the state of a process that had worked (suspend --with-state), and how it says so.
inline constexpr std::string_view with_state_line = "state kept\n";
bool is_with_state(const Snapshot& snapshot);

// A command line as one line of text, "command PART PART"; equal texts are equal command lines.
std::string command_text(const std::vector<std::string>& command_line);

// Whether images, or states of prompts, may lie in `folder`, which is made if it is not there, below `cache`: what is in an
// image runs with our rights, and both hold what was said. Fails with `refused`, saying what to do, for a symbolic link, another user's folder,
// one that is open to others, and one that cannot be written.
Result<void> check_cache_folder(const std::filesystem::path& cache, const std::filesystem::path& folder);

// Sum of the files' sizes.
uint64_t bytes_below(const std::filesystem::path& folder);

// Fsyncs every file of `beside`, writes the fingerprint, and renames it to `place` (replacing what is there).
Result<void> publish(const std::filesystem::path& beside, const std::filesystem::path& place, const std::string& fingerprint);

// What earlier workers of a model taught about the next; 0: nothing yet.
struct Learned {
    uint64_t memory_bytes = 0;  // what one takes at the most
    int64_t cold_ms = 0;        // until ready
    int64_t thaw_ms = 0;
};

// Where the pool keeps its rows; the daemon gives one over its store. Called on the loop's thread.
class Catalogue {
  public:
    virtual ~Catalogue() = default;
    virtual std::vector<Snapshot> snapshots() = 0;
    virtual void put(const Snapshot& snapshot) = 0;
    virtual void remove(const std::string& model) = 0;
    virtual void note_start(const std::string& model, bool thawed) = 0;
    virtual std::map<std::string, Learned> learned() = 0;  // by model
    virtual void put_learned(const std::string& model, const Learned& learned) = 0;

    // What is known of a model's starts, cold and thawed, of all daemons. Times by the wall clock.
    struct History {
        std::string model;
        uint64_t starts = 0;
        int64_t first_at_ms = 0;
        int64_t last_at_ms = 0;  // 0: not known
    };
    virtual std::vector<History> histories() = 0;

    // Processes that are ours, so that a daemon that finds them after a crash can prove it.
    struct Running {
        std::string model;
        pid_t pid = 0;
        uint64_t start_time = 0;
        std::string token;
        Endpoint endpoint;
        std::string command;  // command_text()
    };
    virtual std::vector<Running> running() = 0;
    virtual void put_running(const Running& running) = 0;
    virtual void remove_running(const std::string& model) = 0;
};

}  // namespace torpor::gpu
