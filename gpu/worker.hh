// One live process tree of an engine, from its start or thaw to its end. Loop thread only.
#pragma once

#include "base/event_loop.hh"
#include "base/folders.hh"
#include "base/process.hh"
#include "gpu/connections.hh"
#include "gpu/engine.hh"
#include "gpu/probe.hh"

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace torpor::gpu {

// What a worker is made from: the same for a cold start and for a thaw.
struct WorkerPlan {
    Model model;
    const Engine* engine = nullptr;
    Endpoint endpoint;
    std::vector<std::string> command_line;  // without the launcher
    std::filesystem::path log;
    bool keeps_prompts = false;             // gpu/prompt_keeper.hh
    std::string token;                      // in the worker's environment, so that it can be proved to be ours; give_token()
};

// Where an engine keeps the state of prompts; an empty folder: nowhere.
struct PromptPlace {
    std::string folder;
    uint64_t memory_bytes = 0;  // of the engine's own, beside its slots
};

// Fails with what keeps the model from being started: no engine, no weights. `known`: where the process listens that
// the plan is for, if there is one already; an engine that needs a port gets a free one otherwise.
Result<WorkerPlan> plan_worker(const Model& model, const Folders& folders, const EnginePrograms& programs,
                               const PromptPlace& prompts, const Endpoint& known = {});

// Its worker carries this token, which is also the key that it asks for, if its engine can be told to ask for one.
void give_token(WorkerPlan& plan, std::string token);

// Ends what a thaw that did not come to its end made of the process `pid`: our child and all its descendants.
// Loop thread.
void end_half_made(EventLoop& loop, pid_t pid);

class Worker {
  public:
    using OnEnd = std::function<void(Ending)>;

    // Starts the engine. `on_end` is called once all its processes have ended.
    static Result<std::unique_ptr<Worker>> start(EventLoop& loop, const WorkerPlan& plan, const std::string& launcher,
                                                 OnEnd on_end);
    // Takes over a process that runs already.
    static Result<std::unique_ptr<Worker>> adopt(EventLoop& loop, const WorkerPlan& plan, pid_t pid, OnEnd on_end);

    Worker(EventLoop& loop, WorkerPlan plan, OnEnd on_end);
    ~Worker();
    Worker(const Worker&) = delete;
    Worker& operator=(const Worker&) = delete;

    // Asks the readiness path whenever the worker shows a sign of life (its log grows, its socket
    // appears), until it answers 200 or start_time_max has passed.
    void await_ready(std::function<void(Result<void>)> on_ready);
    // The engine's warm-up request, if it has one; always calls back.
    void warm_up(std::function<void()> on_done);
    // Ends all processes: at once, or politely first. on_end follows.
    void end(bool at_once);

    pid_t pid() const { return process_->pid(); }
    const WorkerPlan& plan() const { return plan_; }
    std::shared_ptr<Connections> connections() const { return connections_; }
    // Closes all kept connections; connections() gives a fresh set from now on.
    void renew_connections();
    // The last lines that it wrote.
    std::string last_words() const;

    // Files in /dev/shm that go with it once no process has them in use.
    void note_shared_files(std::vector<std::string> names);

  private:
    void on_leader_end(Ending ending);
    void watch_for_signs();
    std::vector<pid_t> left_behind() const;
    void on_sign_of_life();
    void ask();
    void finish_ready(Result<void> result);
    void remove_private_file();
    void tell_end();

    EventLoop& loop_;
    WorkerPlan plan_;
    OnEnd on_end_;
    std::unique_ptr<Process> process_;
    std::shared_ptr<Connections> connections_;
    uint64_t log_start_ = 0;

    // Readiness.
    Fd inotify_;
    std::unique_ptr<Watch> signs_;
    std::unique_ptr<Probe> probe_;
    Timer next_ask_;
    Timer deadline_;
    bool is_asking_ = false;
    bool ask_again_ = false;
    std::function<void(Result<void>)> on_ready_;

    // Ending.
    Timer kill_timer_;
    std::vector<std::unique_ptr<Process>> others_;  // members of its session besides the leader
    size_t others_left_ = 0;
    bool leader_ended_ = false;
    bool is_new_ = false;  // neither thawed nor taken back
    std::chrono::system_clock::time_point began_ = std::chrono::system_clock::now();  // no later than its first process
    std::vector<std::string> shared_files_;  // in /dev/shm, which it cannot remove when it is killed
    Ending ending_;
};

}  // namespace torpor::gpu
