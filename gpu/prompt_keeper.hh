// Keeps the state of one model's prompts: which conversations the live worker has in its slots, and what of them is on
// disk. So a conversation that comes back after a freeze, or after others took its slot, is given back instead of read anew.
//
// Requests are told which slot to take where their wire can say so. Elsewhere the engine chooses, and its slots are told
// apart by how many tokens they hold. So what is noted here may be wrong; but a state that is given back counts only as far
// as the engine finds the same tokens in it, and a mistake costs time, never an answer. (Adapters that a request asks for
// itself are the exception: the same tokens make another state. After such a request nothing is kept of the process.)
//
// The engine is llama-server, told to leave a prompt in its slot until the slot is needed (engines/llama_server.cc).
#pragma once

#include "base/event_loop.hh"
#include "gpu/conversation.hh"
#include "gpu/probe.hh"
#include "gpu/prompt_store.hh"
#include "gpu/worker.hh"

#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

namespace torpor::gpu {

class PromptKeeper;

// One request's place among the slots, until it is destroyed. Any thread.
class PromptSeat {
  public:
    PromptSeat(std::shared_ptr<PromptKeeper> keeper, uint64_t note, int64_t slot) : slot(slot), keeper_(std::move(keeper)), note_(note) {}
    ~PromptSeat();
    PromptSeat(const PromptSeat&) = delete;
    PromptSeat& operator=(const PromptSeat&) = delete;

    // The request was answered, of so many tokens in prompt and answer together.
    void answered(uint64_t tokens) { tokens_ = tokens; }

    const int64_t slot;  // that the request is to ask for; -1: any

  private:
    std::shared_ptr<PromptKeeper> keeper_;
    const uint64_t note_;
    uint64_t tokens_ = 0;  // 0: not known
};
using PromptSeatPtr = std::shared_ptr<PromptSeat>;

class PromptKeeper : public std::enable_shared_from_this<PromptKeeper> {
  public:
    using Clock = std::chrono::steady_clock;

    PromptKeeper(EventLoop& loop, PromptStore& store, std::string model);
    ~PromptKeeper();
    PromptKeeper(const PromptKeeper&) = delete;
    PromptKeeper& operator=(const PromptKeeper&) = delete;

    // For requests that hold a lease; any thread.
    //
    // A request is about to be sent; `may_choose`: it can ask for a slot. A null seat: nothing is kept of it. Nothing at all if
    // something should be saved or given back first: prepare() does that.
    std::optional<PromptSeatPtr> begin(const Conversation& conversation, bool may_choose);
    // The same with what must be done first. `done` is called on the loop, whatever comes of it.
    void prepare(Conversation conversation, bool may_choose, std::function<void(PromptSeatPtr)> done);

    // The loop's thread.
    //
    // A process is ready, or has ended: nothing is known of its slots.
    void worker_is_ready(const WorkerPlan& plan, pid_t pid);
    void worker_has_ended();
    // Saves what the slots hold and the disk does not, within prompt_save_time_max. For a worker that is about to end.
    void save_all(std::function<void()> done);
    // Whether the engine is being asked something.
    bool is_at_work() const { return is_at_work_; }

  private:
    friend class PromptSeat;
    void end(uint64_t note, uint64_t tokens);

    // What a slot of the engine's is thought to hold.
    struct Held {
        uint64_t note = 0;
        Conversation conversation;
        int64_t slot = -1;    // -1: not known
        uint64_t tokens = 0;  // 0: not known
        bool is_busy = false;
        bool is_saved = false;
        Clock::time_point used_at{};
    };
    // A slot, as the engine tells.
    struct EngineSlot {
        int64_t id = 0;
        bool is_busy = false;
        uint64_t tokens = 0;
        int64_t task = -1;  // the last one's number; later ones have greater numbers
    };
    using EngineSlots = std::vector<EngineSlot>;
    // What must be done before a request, and what its slot holds now.
    struct Need {
        uint64_t replaced = 0;        // a note; 0: nothing
        std::vector<uint64_t> saves;  // notes
        std::vector<uint64_t> clear;  // notes; after the saves, to make room
        std::optional<PromptStore::Match> give_back;
        bool is_nothing() const { return saves.empty() && clear.empty() && !give_back; }
    };

    // prompt_needs.cc; mutex_ held.
    Need need_of(const Conversation& conversation) const;
    void make_room(const Conversation& conversation, Need& need) const;
    PromptSeatPtr take_seat(const Conversation& conversation, bool may_choose, uint64_t replaced, int64_t slot);
    int64_t free_slot() const;
    const Held* find(uint64_t note) const;
    Held* find(uint64_t note);
    void locate(const EngineSlots& slots);
    int64_t slot_to_fill(const Need& need, const EngineSlots& slots) const;
    static bool is_dirty(const Held& held);

    // One job after the other.
    using Next = std::function<void()>;
    void enqueue(std::function<void(Next)> job);
    void run_next();
    using Answered = std::function<void(int status, const std::string& body)>;  // 0: not at all
    void ask(const std::string& path, const std::string& body, Clock::time_point deadline, Answered answered);
    void look(Clock::time_point deadline, std::function<void(EngineSlots)> seen);
    void save_each(std::vector<uint64_t> notes, Clock::time_point deadline, Next next);
    void save(uint64_t note, Clock::time_point deadline, Next next);
    void clear_each(std::vector<uint64_t> notes, Next next);
    void give_back(const PromptStore::Match& match, int64_t slot, std::function<void(bool)> done);
    bool is_on_disk(const Held& held) const;
    Result<void> check_save(const Held& held) const;
    const std::string& fingerprint();

    EventLoop& loop_;
    PromptStore& store_;
    const std::string model_;

    // The loop's thread only.
    std::optional<WorkerPlan> plan_;
    pid_t pid_ = 0;
    std::string fingerprint_;  // of the process; empty until it is needed
    std::unique_ptr<Probe> probe_;  // the question under way
    Answered answered_;             // what waits for it
    std::deque<std::function<void(Next)>> jobs_;
    bool is_at_work_ = false;
    double bytes_per_token_ = 0;  // 0: not known yet

    mutable std::mutex mutex_;
    bool is_off_ = true;            // guarded by mutex_; for this process
    size_t slots_ = 0;              // guarded by mutex_; 0: not known yet
    uint64_t capacity_tokens_ = 0;  // guarded by mutex_; of all slots together
    uint64_t last_note_ = 0;        // guarded by mutex_
    std::vector<Held> held_;        // guarded by mutex_
};

}  // namespace torpor::gpu
