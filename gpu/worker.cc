#include "gpu/worker.hh"

#include "base/open_files.hh"
#include "base/text.hh"
#include "gpu/limits.hh"
#include "gpu/ownership.hh"
#include "gpu/shared_files.hh"
#include "gpu/worker_log.hh"

#include <signal.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <ctime>

namespace torpor::gpu {

namespace {

// What a worker sees of our environment: enough to find programs, caches and devices, no secrets.
constexpr std::array<std::string_view, 14> passed_on{
    "PATH", "HOME", "USER", "LANG", "LC_ALL", "TMPDIR", "TZ", "LD_LIBRARY_PATH", "XDG_CACHE_HOME",
    "HF_HOME", "CUDA_VISIBLE_DEVICES", "CUDA_HOME", "ROCR_VISIBLE_DEVICES", "OMP_NUM_THREADS"};

std::vector<std::string> environment_of(const WorkerPlan& plan) {
    std::map<std::string, std::string> variables;
    for (const std::string_view name : passed_on) {
        if (const char* value = std::getenv(std::string(name).c_str())) variables[std::string(name)] = value;
    }
    for (const auto& [name, value] : plan.engine->environment) variables[std::string(name)] = value;
    for (const auto& [name, value] : plan.model.env) variables[name] = value;
    variables[std::string(token_variable)] = plan.token;
    std::vector<std::string> environment;
    for (const auto& [name, value] : variables) environment.push_back(name + "=" + value);
    return environment;
}

// When a process that runs already was started; to a second or so.
std::chrono::system_clock::time_point began_at(pid_t pid) {
    timespec up{};
    ::clock_gettime(CLOCK_BOOTTIME, &up);
    const auto seconds = static_cast<time_t>(start_time_of(pid).value_or(0) / static_cast<uint64_t>(::sysconf(_SC_CLK_TCK)));
    return std::chrono::system_clock::now() - std::chrono::seconds(up.tv_sec - seconds + 1);
}

}  // namespace

Result<WorkerPlan> plan_worker(const Model& model, const Folders& folders, const EnginePrograms& programs,
                               const PromptPlace& prompts, const Endpoint& known) {
    WorkerPlan plan;
    plan.model = model;
    plan.engine = find_engine(model.engine);
    if (plan.engine == nullptr) return fail(Kind::engine, "{} is not an engine", model.engine);
    if (auto checked = check_files(model); !checked) return Failure(Error{Kind::engine, checked.error().message, checked.error().cause});
    auto program = plan.engine->find(model, folders, programs);
    if (!program) return Failure(program.error());
    if (plan.engine->uses_socket(model)) {
        plan.endpoint.socket = folders.workers() / (model.name + ".sock");
    } else if (known.port != 0) {
        plan.endpoint.port = known.port;
    } else {
        auto port = free_port();
        if (!port) return Failure(port.error());
        plan.endpoint.port = *port;
    }
    plan.endpoint.files = folders.workers() / model.name;
    plan.command_line = plan.engine->command_line(model, plan.endpoint, *program);
    if (plan.engine->prompt_flags != nullptr && !prompts.folder.empty()) {
        const auto flags = plan.engine->prompt_flags(model, prompts.folder, prompts.memory_bytes);
        plan.command_line.insert(plan.command_line.end(), flags.begin(), flags.end());
        plan.keeps_prompts = !flags.empty();
    }
    plan.log = folders.logs() / (model.name + ".log");
    give_token(plan, random_token());
    return plan;
}

void give_token(WorkerPlan& plan, std::string token) {
    plan.token = std::move(token);
    if (plan.engine->private_file != nullptr) plan.endpoint.key = plan.token;
}

void end_half_made(EventLoop& loop, pid_t pid) {
    const auto ours = process_tree(::getpid());
    if (pid <= 1 || std::ranges::find(ours, pid) == ours.end()) return;
    const std::vector<pid_t> members = process_tree(pid);
    for (const pid_t member : members) {
        ::kill(member, SIGKILL);
        // Kept by its own callback until it is reaped: nobody else knows of it.
        auto holder = std::make_shared<std::unique_ptr<Process>>();
        auto process = Process::watch(loop, member, [&loop, holder, members](Ending) {
            reap(members);
            loop.post([holder] {});
        });
        if (process) *holder = std::move(*process);
    }
}

Worker::Worker(EventLoop& loop, WorkerPlan plan, OnEnd on_end)
    : loop_(loop), plan_(std::move(plan)), on_end_(std::move(on_end)),
      connections_(std::make_shared<Connections>(plan_.endpoint)), next_ask_(loop), deadline_(loop), kill_timer_(loop) {}

Worker::~Worker() {
    signs_.reset();  // before the inotify descriptor that it watches
    connections_->close_all();
}

Result<std::unique_ptr<Worker>> Worker::start(EventLoop& loop, const WorkerPlan& plan, const std::string& launcher,
                                              OnEnd on_end) {
    auto log = open_worker_log(plan.log);
    if (!log) return Failure(log.error());
    if (plan.engine->private_file != nullptr) {
        const EngineFile file = plan.engine->private_file(plan.endpoint);
        if (auto written = write_file_atomically(file.path, file.text, 0600); !written) return Failure(written.error());
    }
    auto worker = std::make_unique<Worker>(loop, plan, std::move(on_end));
    worker->log_start_ = size_of(plan.log);
    if (!plan.endpoint.socket.empty()) ::unlink(plan.endpoint.socket.c_str());
    SpawnOptions options;
    options.argv = {launcher, "--open-files", std::to_string(open_files_at_start())};
    if (plan.engine->refuse_io_uring) options.argv.emplace_back("--no-io-uring");
    if (plan.engine->refuse_amx && plan.model.snapshot) options.argv.emplace_back("--no-amx");
    options.argv.emplace_back("--");
    options.argv.insert(options.argv.end(), plan.command_line.begin(), plan.command_line.end());
    options.environment = environment_of(plan);
    options.working_folder = "/";
    options.output = log->get();
    options.own_session = true;
    worker->is_new_ = true;
    auto process = Process::spawn(loop, options, [raw = worker.get()](Ending ending) { raw->on_leader_end(ending); });
    if (!process) {
        worker->remove_private_file();
        return Failure(process.error());
    }
    worker->process_ = std::move(*process);
    return worker;
}

Result<std::unique_ptr<Worker>> Worker::adopt(EventLoop& loop, const WorkerPlan& plan, pid_t pid, OnEnd on_end) {
    auto worker = std::make_unique<Worker>(loop, plan, std::move(on_end));
    worker->log_start_ = size_of(plan.log);
    worker->began_ = began_at(pid);
    auto process = Process::watch(loop, pid, [raw = worker.get()](Ending ending) { raw->on_leader_end(ending); });
    if (!process) return Failure(process.error());
    worker->process_ = std::move(*process);
    return worker;
}

void Worker::renew_connections() {
    connections_->close_all();
    connections_ = std::make_shared<Connections>(plan_.endpoint);
}

std::string Worker::last_words() const {
    return gpu::last_words(plan_.log, log_start_);
}

void Worker::await_ready(std::function<void(Result<void>)> on_ready) {
    on_ready_ = std::move(on_ready);
    deadline_.start(start_time_max, [this] {
        finish_ready(fail(Kind::engine, "{} was not ready after {}", plan_.model.name, format_duration(start_time_max)));
    });
    ask();
}

// A line in its log or a file beside its socket: worth asking again.
void Worker::watch_for_signs() {
    inotify_ = Fd(::inotify_init1(IN_CLOEXEC | IN_NONBLOCK));
    if (!inotify_) return;
    ::inotify_add_watch(inotify_.get(), plan_.log.c_str(), IN_MODIFY);
    if (!plan_.endpoint.socket.empty()) {
        const auto folder = std::filesystem::path(plan_.endpoint.socket).parent_path();
        ::inotify_add_watch(inotify_.get(), folder.c_str(), IN_CREATE);
    }
    signs_ = std::make_unique<Watch>(loop_, inotify_.get(), UV_READABLE, [this] { on_sign_of_life(); });
}

void Worker::on_sign_of_life() {
    std::array<char, 4096> events{};
    while (::read(inotify_.get(), events.data(), events.size()) > 0) {
    }
    if (is_asking_) {
        ask_again_ = true;
    } else {
        next_ask_.start(probe_gap, [this] { ask(); });
    }
}

void Worker::ask() {
    if (!on_ready_) return;
    is_asking_ = true;
    ask_again_ = false;
    const std::string path = plan_.model.ready.empty() ? std::string(plan_.engine->ready_path) : plan_.model.ready;
    probe_ = std::make_unique<Probe>(
        loop_, plan_.endpoint, path, "",
        [this](int status) {
            is_asking_ = false;
            if (status == 200) return finish_ready({});
            if (!inotify_) {
                // Only now: a thawed worker answers the first time. What came meanwhile is asked for once more.
                watch_for_signs();
                ask_again_ = true;
            }
            next_ask_.start(ask_again_ ? probe_gap : probe_fallback, [this] { ask(); });
        },
        probe_time_max);
}

// It was read at the start.
void Worker::remove_private_file() {
    if (plan_.engine->private_file != nullptr) ::unlink(plan_.engine->private_file(plan_.endpoint).path.c_str());
}

void Worker::finish_ready(Result<void> result) {
    signs_.reset();
    remove_private_file();
    // Where its leader is killed the others may be gone before they can be looked at. (A thawed one's files are known.)
    if (result && is_new_) note_shared_files(shared_files_of(session_members(pid()), began_));
    // The kernel closes an inotify only after a grace period of some 15 ms, which nobody is to wait for.
    if (inotify_) loop_.run_aside([gone = std::make_shared<Fd>(std::move(inotify_))] { gone->reset(); }, [] {});
    next_ask_.cancel();
    deadline_.cancel();
    if (const auto on_ready = std::move(on_ready_)) on_ready(std::move(result));
}

void Worker::warm_up(std::function<void()> on_done) {
    const std::string body = plan_.engine->warm_up_body(plan_.model);
    if (plan_.engine->warm_up_path.empty() || body.empty()) return on_done();
    probe_ = std::make_unique<Probe>(
        loop_, plan_.endpoint, std::string(plan_.engine->warm_up_path), body, [on_done](int) { on_done(); }, start_time_max);
}

void Worker::end(bool at_once) {
    connections_->close_all();
    if (leader_ended_) return;
    note_shared_files(shared_files_of(session_members(pid()), began_));
    if (at_once) return kill_session(pid());
    process_->send(SIGTERM);
    kill_timer_.start(term_grace, [this] { kill_session(pid()); });
}

// The rest of its session, and what left the session but carries its token: orphans, so by now our children.
std::vector<pid_t> Worker::left_behind() const {
    std::vector<pid_t> found = session_members(pid());
    for (const pid_t other : process_tree(::getpid())) {
        if (!plan_.token.empty() && token_of(other) == plan_.token && std::ranges::find(found, other) == found.end()) found.push_back(other);
    }
    std::erase(found, pid());
    return found;
}

// The leader is gone; what is left of its session goes too, and only then is the worker's end told.
void Worker::on_leader_end(Ending ending) {
    kill_timer_.cancel();
    leader_ended_ = true;
    ending_ = ending;
    on_ready_ = nullptr;
    is_new_ = false;
    finish_ready({});
    const std::vector<pid_t> others = left_behind();
    note_shared_files(shared_files_of(others, began_));
    for (const pid_t other : others) {
        ::kill(other, SIGKILL);
        auto process = Process::watch(loop_, other, [this, others](Ending) {
            if (--others_left_ != 0) return;
            reap(others);
            tell_end();  // may destroy this
        });
        if (process) {
            others_.push_back(std::move(*process));
            ++others_left_;
        }
    }
    if (others_left_ == 0) tell_end();  // may destroy this
}

void Worker::note_shared_files(std::vector<std::string> names) {
    for (std::string& name : names) {
        if (std::ranges::find(shared_files_, name) == shared_files_.end()) shared_files_.push_back(std::move(name));
    }
}

void Worker::tell_end() {
    remove_shared_files(shared_files_);
    on_end_(ending_);  // may destroy this
}

}  // namespace torpor::gpu
