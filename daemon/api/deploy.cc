// POST /api/deploy: a model's file is checked, tried, installed, and its model shown to answer, to sleep and to wake.
//
// The answer is a stream of lines of JSON: {"step": TEXT} as it goes on, and as the last one {"done": ...} or
// {"error": ...}. What only looks (a mistake in the file, a dry run) is answered whole.
//
// Until the last line all can be given back, and is when something fails, or when the client goes away:
//
//     check ── try ── install ── start, answer ── freeze ── thaw, answer ── done
//               └ under another name, beside the model that is there and serves on; only if there is one
//
// A torpord that is killed on the way leaves a whole file, the old or the new one: what is tried is in no file.
#include "base/fd.hh"
#include "base/json.hh"
#include "base/log.hh"
#include "base/text.hh"
#include "daemon/answers.hh"
#include "daemon/api/body.hh"
#include "daemon/api/first_answer.hh"
#include "daemon/api/handlers.hh"
#include "daemon/daemon.hh"
#include "gpu/limits.hh"
#include "gpu/snapshot.hh"
#include "gpu/worker.hh"

#include <poll.h>
#include <unistd.h>

#include <algorithm>

namespace torpor::api {

namespace {

struct Plan {
    gpu::Model model;
    std::string text;                     // to be installed
    std::filesystem::path file;           // where
    std::optional<std::string> old_text;  // what is there now
    bool replaces = false;                // a model of this name is served
    bool is_same = false;                 // and is this very one
    gpu::WorkerPlan worker;
};

struct Asked {
    Plan plan;
    bool is_dry = false;
};

// What would stand in the way of taking the file once it is installed: mistakes in others.
Result<void> check_others(const Daemon& daemon, const std::filesystem::path& file) {
    auto config = load_config(daemon.folders);
    if (!config) return Failure(config.error());
    std::erase_if(config->mistakes, [&file](const std::string& mistake) { return mistake.starts_with(file.string() + ":"); });
    if (config->mistakes.empty()) return {};
    return fail(Kind::conflict, "nothing can be deployed until this is mended: {}", fmt::join(config->mistakes, "; "));
}

Result<void> look_around(Daemon& daemon, Plan& plan) {
    const gpu::Model& model = plan.model;
    if (auto free = check_free(daemon, model); !free) return free;
    if (auto fits = daemon.pool.check_fits(model); !fits) return fits;
    plan.file = file_of(daemon, model.name);
    if (auto taken = check_others(daemon, plan.file); !taken) return taken;
    if (auto old_text = read_file(plan.file, gpu::model_file_bytes_max)) plan.old_text = std::move(*old_text);
    if (const auto old_model = daemon.pool.find(model.name)) {
        plan.replaces = true;  // check_free() has seen that it is no other model's alias
        plan.is_same = *old_model == model;
    }
    gpu::EnginePrograms programs;
    {
        std::lock_guard lock(daemon.config_mutex);
        programs = daemon.config.programs;
    }
    auto worker = gpu::plan_worker(model, daemon.folders, programs, {});
    if (!worker) return Failure(worker.error());
    plan.worker = std::move(*worker);
    return {};
}

// "FILE:LINE: " where the text names the file that this message is about.
std::string place_of(const std::string& message, const gpu::Model& model, std::string_view text, const std::string& file) {
    std::vector<std::string> paths{model.path};
    for (const gpu::Adapter& adapter : model.adapters) paths.push_back(adapter.path);
    for (const std::string& path : paths) {
        if (path.empty() || message.find(path) == std::string::npos) continue;
        const size_t at = text.find(std::filesystem::path(path).filename().string());
        if (at == std::string_view::npos) continue;
        return fmt::format("{}:{}: ", file, 1 + std::ranges::count(text.substr(0, at), '\n'));
    }
    return file + ": ";
}

Result<Asked> read_plan(Call& call) {
    auto body = Body::parse(call.body.text, {"name", "text", "file", "dry_run"});
    if (!body) return Failure(body.error());
    Asked asked;
    std::string name, text, file;
    body->text("name", name);
    body->text("text", text);
    body->text("file", file);
    body->truth("dry_run", asked.is_dry);
    if (body->error()) return Failure(*body->error());
    if (file.empty() || file[0] != '/') return fail(Kind::invalid, "'file' must be the absolute path of the file");
    std::vector<std::string> notes;
    auto model = gpu::parse_model(name, text, file, &notes, std::filesystem::path(file).parent_path());
    if (!model) return Failure(model.error());
    for (const std::string& note : notes) log::warning("{}", note);
    Plan& plan = asked.plan;
    const auto as_it_is = gpu::parse_model(name, text, file, nullptr);
    const bool is_whole = as_it_is && *as_it_is == *model;  // it means the same from any other folder
    plan.text = is_whole ? text : fmt::format("# Made by torpor deploy from {}\n{}", last_lines(file, 1), gpu::write_model(*model));
    plan.model = std::move(*model);
    if (auto readable = gpu::check_files(plan.model); !readable) {
        Error error = readable.error();
        error.message = place_of(error.message, plan.model, text, file) + error.message;
        return Failure(error);
    }
    if (auto looked = look_around(call.daemon, plan); !looked) return Failure(looked.error());
    return asked;
}

// Why there will be no snapshot; empty if there will be one.
std::string why_no_snapshot(const Daemon& daemon, const gpu::Model& model) {
    if (!model.snapshot) return "its file says snapshot = \"off\"";
    return daemon.pool.criu().is_offered() ? "" : daemon.pool.criu().why_not;
}

uint64_t bytes_of(const std::string& path) {
    std::error_code code;
    if (std::filesystem::is_directory(path, code)) return gpu::bytes_below(path);
    const auto bytes = std::filesystem::file_size(path, code);
    return code ? 0 : bytes;
}

std::string describe_plan(const Daemon& daemon, const Plan& plan) {
    JsonWriter json;
    json.begin_object()
        .member("name", plan.model.name)
        .member("action", plan.is_same ? "none" : plan.replaces ? "replace" : "add")
        .member("file", plan.file.string())
        .member("engine", plan.model.engine);
    json.key("files").begin_array();
    const auto add = [&json](const std::string& path) {
        if (!path.empty()) json.begin_object().member("path", path).member("bytes", bytes_of(path)).end_object();
    };
    add(plan.model.path);
    for (const gpu::Adapter& adapter : plan.model.adapters) add(adapter.path);
    json.end_array().key("command_line").begin_array();
    for (const std::string& part : plan.worker.command_line) json.value(part);
    json.end_array().member("why_no_snapshot", why_no_snapshot(daemon, plan.model)).end_object();
    return json.take();
}

// At most one of them at a time.
class Turn {
  public:
    static std::shared_ptr<Turn> take(Daemon& daemon) {
        return daemon.is_deploying.exchange(true) ? nullptr : std::make_shared<Turn>(daemon);
    }
    explicit Turn(Daemon& daemon) : daemon_(daemon) {}
    ~Turn() { daemon_.is_deploying = false; }
    Turn(const Turn&) = delete;
    Turn& operator=(const Turn&) = delete;

  private:
    Daemon& daemon_;
};

class Deploy {
  public:
    using Say = std::function<void(const std::string& line)>;

    Deploy(Daemon& daemon, Plan plan, std::string principal, int client_fd, Say say)
        : daemon_(daemon), plan_(std::move(plan)), principal_(std::move(principal)), client_fd_(client_fd), say_(std::move(say)) {}

    // The last line.
    std::string run();

  private:
    struct Shown {
        gpu::Wake wake = gpu::Wake::warm;
        double wake_ms = 0;
        FirstAnswer answer;
    };

    void step(const std::string& text);
    Result<void> check_here() const;
    gpu::Model trial() const;
    Result<void> try_out();
    Result<void> set_trial(bool is_wanted);
    Result<void> install();
    Result<Shown> show(const std::string& name);
    Result<std::string> prove();
    std::string done(const Shown& first, const Shown& last);
    Error give_back(Error error);

    Daemon& daemon_;
    const Plan plan_;
    const std::string principal_;
    const int client_fd_;
    const Say say_;
};

std::string Deploy::run() {
    log::info("{}: deploying {}", plan_.model.name, plan_.replaces ? "in place of what is there" : "a new model");
    Result<std::string> last = [this]() -> Result<std::string> {
        if (plan_.replaces && !plan_.is_same) {
            if (auto tried = try_out(); !tried) return Failure(tried.error());
        }
        if (auto here = check_here(); !here) return Failure(here.error());
        auto installed = install();
        auto proved = installed ? prove() : Failure(installed.error());
        if (!proved) return Failure(give_back(proved.error()));
        return proved;
    }();
    if (last) return *last;
    const Error& error = last.error();
    log::warning("{}: not deployed: {}", plan_.model.name, error.text());
    JsonWriter json;
    json.begin_object().key("error").begin_object().member("kind", row_of(error.kind).name).member("message", error.message);
    if (!error.cause.empty()) json.member("cause", error.cause);
    return json.end_object().end_object().take();
}

void Deploy::step(const std::string& text) {
    JsonWriter json;
    say_(json.begin_object().member("step", text).end_object().take());
}

Result<void> Deploy::check_here() const {
    pollfd look{client_fd_, POLLRDHUP, 0};
    if (::poll(&look, 1, 0) <= 0) return {};
    return fail(Kind::cancelled, "cancelled");
}

// The same under another name, which nobody asks for by accident.
gpu::Model Deploy::trial() const {
    gpu::Model model = plan_.model;
    model.name += ".trial";
    model.aliases.clear();
    for (gpu::Adapter& adapter : model.adapters) adapter.name += ".trial";
    model.idle.reset();
    model.snapshot = false;
    return model;
}

Result<void> Deploy::set_trial(bool is_wanted) {
    {
        std::lock_guard lock(daemon_.config_mutex);
        daemon_.trials.clear();
        if (is_wanted) daemon_.trials.push_back(trial());
    }
    return daemon_.give_models();
}

Result<void> Deploy::try_out() {
    const std::string name = trial().name;
    if (daemon_.pool.find(name)) return fail(Kind::conflict, "{} is needed to try it, but is a model of yours; rename that", name);
    step(fmt::format("trying it as {}, while {} serves on", name, plan_.model.name));
    Result<void> tried = set_trial(true);
    if (tried) {
        if (auto shown = show(name); !shown) tried = Failure(shown.error());
    }
    (void)daemon_.pool.stop(name, true);  // now: what comes next may need its memory
    (void)set_trial(false);
    std::error_code code;
    std::filesystem::remove(daemon_.folders.logs() / (name + ".log"), code);
    if (tried) return {};
    Error error = tried.error();
    error.message += fmt::format("; nothing has changed, {} is as it was", plan_.model.name);
    return Failure(error);
}

Result<void> Deploy::install() {
    step(fmt::format("installing {}", plan_.file.string()));
    if (auto written = write_file_atomically(plan_.file, plan_.text, 0600); !written) return written;
    return take_change(daemon_, plan_.file.string() + " is written");
}

Result<Deploy::Shown> Deploy::show(const std::string& name) {
    Shown shown;
    auto lease = daemon_.pool.acquire_blocking({name, principal_}, client_fd_, gpu::wait_max);
    if (!lease) return lease.error().kind == Kind::cancelled ? fail(Kind::cancelled, "cancelled") : Failure(lease.error());
    shown.wake = lease->wake;
    shown.wake_ms = lease->wake_ms;
    gpu::Model model = plan_.model;
    model.name = name;
    auto answer = ask_first(*lease, model, client_fd_);
    if (!answer) return answer.error().kind == Kind::cancelled ? fail(Kind::cancelled, "cancelled") : Failure(answer.error());
    shown.answer = std::move(*answer);
    return shown;
}

// What people want to know is seen, not guessed: it is put to sleep and woken once.
Result<std::string> Deploy::prove() {
    const std::string& name = plan_.model.name;
    step(fmt::format("starting {}", name));
    auto first = show(name);
    if (!first) return Failure(first.error());
    if (!why_no_snapshot(daemon_, plan_.model).empty()) return done(*first, *first);
    step(fmt::format("freezing {} once", name));
    if (auto frozen = daemon_.pool.suspend(name, false); !frozen) return Failure(frozen.error());
    if (auto here = check_here(); !here) return Failure(here.error());
    step(fmt::format("waking {}", name));
    auto last = show(name);
    if (!last) return Failure(last.error());
    if (auto here = check_here(); !here) return Failure(here.error());
    return done(*first, *last);
}

std::string Deploy::done(const Shown& first, const Shown& last) {
    const auto status = daemon_.pool.status(plan_.model.name);
    const uint64_t snapshot_bytes = status ? status->snapshot_bytes : 0;
    std::string why = why_no_snapshot(daemon_, plan_.model);
    if (why.empty() && last.wake != gpu::Wake::thawed) why = "it did not wake from one; torpord.log says why";
    std::string tcp;
    {
        std::lock_guard lock(daemon_.config_mutex);
        const auto& address = daemon_.config.http.tcp;
        if (daemon_.tcp_is_well && address) tcp = fmt::format("{}://{}", daemon_.certificate ? "https" : "http", address->text());
    }
    JsonWriter json;
    json.begin_object().key("done").begin_object()
        .member("name", plan_.model.name)
        .member("action", plan_.is_same ? "none" : plan_.replaces ? "replace" : "add")
        .member("socket", daemon_.folders.socket().string())
        .member("tcp", tcp)
        .member("path", first.answer.path)
        .member("body", first.answer.body)
        .member("start", gpu::name_of(first.wake))
        .key("start_ms").raw(fmt::format("{:.1f}", first.wake_ms))
        .key("answer_ms").raw(fmt::format("{:.1f}", first.answer.ms))
        .member("wake", gpu::name_of(last.wake))
        .key("wake_ms").raw(fmt::format("{:.1f}", last.wake_ms))
        .member("snapshot_bytes", snapshot_bytes)
        .member("why_no_snapshot", why)
        .end_object().end_object();
    log::info("{}: deployed", plan_.model.name);
    return json.take();
}

// The file that was there is put back, or the new one taken away.
Error Deploy::give_back(Error error) {
    step("giving back what was there");
    std::error_code code;
    Result<void> back;
    if (plan_.old_text) {
        back = write_file_atomically(plan_.file, *plan_.old_text, 0600);
    } else {
        std::filesystem::remove(plan_.file, code);
    }
    if (back) back = take_change(daemon_, plan_.file.string() + " is as it was");
    if (!back) {
        error.message += fmt::format("; and what was there could not be given back: {}", back.error().text());
    } else if (plan_.is_same) {
        error.message += "; its file is as it was";
    } else if (plan_.replaces) {
        error.message += fmt::format("; {} is what it was before, and its next start is cold", plan_.model.name);
    } else {
        error.message += "; nothing is installed";
    }
    return error;
}

}  // namespace

void deploy(Call& call, http::Response& response) {
    auto asked = read_plan(call);
    if (!asked) return answer_error(response, asked.error());
    if (asked->is_dry) return answer_json(response, 200, describe_plan(call.daemon, asked->plan));
    const auto turn = Turn::take(call.daemon);
    if (!turn) return answer_error(response, {Kind::conflict, "another deploy is under way; wait for its end", {}});
    auto* connection = &http::current_connection()->stream;
    response.set_chunked_content_provider(
        "application/x-ndjson",
        [turn, connection, slot = call.long_slot, &daemon = call.daemon, plan = std::move(asked->plan),
         principal = call.principal.name](size_t, httplib::DataSink& sink) {
            // A client that is gone is noticed between the steps, and by what waits.
            const auto say = [&sink, connection](const std::string& line) {
                if (sink.write(line.data(), line.size()) && sink.write("\n", 1)) connection->flush();
            };
            say(Deploy(daemon, plan, principal, connection->socket(), say).run());
            sink.done();
            return true;
        });
}

}  // namespace torpor::api
