#include "gpu/pool.hh"

#include "base/fd.hh"
#include "base/log.hh"
#include "base/text.hh"
#include "gpu/image_check.hh"
#include "gpu/limits.hh"
#include "gpu/slot.hh"

#include <algorithm>
#include <bit>
#include <future>

namespace torpor::gpu {

namespace {

int64_t now_ms() {
    return std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::system_clock::now().time_since_epoch()).count();
}

}  // namespace

Pool::Pool(EventLoop& loop, Options options)
    : loop_(loop), options_(std::move(options)), room_timer_(std::make_unique<Timer>(loop)) {
    if (options_.prompt_bytes_max == 0) return;
    prompts_ = std::make_unique<PromptStore>(options_.folders.prompts(), options_.prompt_bytes_max);
    prompts_->load();
}

Pool::~Pool() = default;

void Pool::set_models(const std::vector<Model>& models) {
    std::map<std::string, Snapshot> known;
    for (Snapshot& snapshot : options_.catalogue->snapshots()) known[snapshot.model] = std::move(snapshot);
    const auto learned = options_.catalogue->learned();
    unclaimed_ = known;
    for (const Model& model : models) unclaimed_.erase(model.name);
    std::vector<SlotPtr> fresh, changed;
    {
        std::lock_guard lock(mutex_);
        aliases_.clear();
        std::map<std::string, SlotPtr, std::less<>> before = std::move(slots_);
        slots_.clear();
        for (const Model& model : models) {
            for (const std::string& alias : model.aliases) aliases_[alias] = model.name;
            for (const Adapter& adapter : model.adapters) aliases_[adapter.name] = model.name;
            if (auto found = before.find(model.name); found != before.end()) {
                SlotPtr slot = found->second;
                before.erase(found);
                const bool differs = !(slot->model == model);
                slot->model = model;
                slots_[model.name] = slot;
                if (differs) changed.push_back(slot);
                continue;
            }
            auto slot = std::make_shared<Slot>(model.name, prompts_ ? std::make_shared<PromptKeeper>(loop_, *prompts_, model.name) : nullptr);
            slot->model = model;
            slot->since_ms = now_ms();
            if (const auto lesson = learned.find(model.name); lesson != learned.end()) slot->learned = lesson->second;
            slots_[model.name] = slot;
            fresh.push_back(slot);
        }
        for (auto& [name, slot] : before) {
            unclaimed_.erase(name);
            slot->removed = true;
            slots_[name] = slot;  // until it is drained and ended
            changed.push_back(slot);
        }
    }
    take_histories(fresh);
    for (const SlotPtr& slot : fresh) {
        const auto found = known.find(slot->name);
        set_up(slot, found == known.end() ? std::nullopt : std::optional(found->second));
    }
    for (const SlotPtr& slot : changed) {
        slot->dump_failures = 0;
        slot->failures = 0;
        {
            std::lock_guard lock(mutex_);
            slot->retry_at = {};
            slot->learned = {};  // of another worker than the next
            slot->memory_peak = 0;
        }
        options_.catalogue->put_learned(slot->name, {});
        give_order(slot, Order::stop, false, {});
    }
    hold_to_budget();
}

// Its timers, and its image if that is good.
void Pool::set_up(const SlotPtr& slot, std::optional<Snapshot> snapshot) {
    for (auto* timer : {&slot->idle_timer, &slot->quiet_timer, &slot->dying_timer, &slot->log_timer}) *timer = std::make_unique<Timer>(loop_);
    if (!snapshot) return;
    slot->snapshot = std::move(snapshot);
    const auto plan = plan_for_snapshot(*slot);
    if (!options_.criu.is_offered() || !plan) return;  // nothing is wrong with the image itself
    if (const auto reason = why_void(*slot->snapshot, plan->command_line, options_.criu.program)) {
        log::info("{}: its snapshot is void: {}; the next start is cold", slot->name, *reason);
        return drop_snapshot(slot);
    }
    std::lock_guard lock(mutex_);
    slot->snapshot_bytes = slot->snapshot->bytes;
    slot->state = State::asleep;  // where it begins; from here on the table holds
}

std::filesystem::path Pool::image_beside(const Slot& slot) const {
    return options_.folders.snapshots() / (slot.name + ".new");
}

Result<WorkerPlan> Pool::make_plan(const Model& model, const Endpoint& known) const {
    PromptPlace place;
    if (prompts_ && model.snapshot) {  // else nothing of what was said to it is to be on disk
        const auto folder = prompts_->folder_of(model.name);
        const uint64_t part = std::bit_floor(room_.budget().value_or(UINT64_MAX) / prompt_memory_share);
        if (make_private_folder(folder)) place = {folder, std::clamp(part, prompt_memory_min, prompt_memory_max)};
    }
    return plan_worker(model, options_.folders, programs_, place, known);
}

Result<WorkerPlan> Pool::plan_for_snapshot(const Slot& slot) const {
    Endpoint known;
    known.port = number_in(slot.snapshot->fingerprint, "port");
    return make_plan(slot.model, known);
}

Pool::SlotPtr Pool::look_up(std::string_view name_or_alias) const {
    auto found = slots_.find(name_or_alias);
    if (found == slots_.end()) {
        const auto alias = aliases_.find(name_or_alias);
        if (alias != aliases_.end()) found = slots_.find(alias->second);
    }
    return found == slots_.end() || found->second->removed ? nullptr : found->second;
}

Failure Pool::unknown_model(std::string_view name, const std::vector<std::string>& known_to_asker) const {
    const auto is_known = [&](const std::string& model) {
        return known_to_asker.empty() || std::ranges::find(known_to_asker, model) != known_to_asker.end();
    };
    std::vector<std::string> models, names;  // names: aliases, too
    for (const auto& [known, slot] : slots_) {
        if (slot->removed) continue;
        if (is_known(known)) models.push_back(known);
        if (is_known(known)) names.insert(names.end(), slot->model.aliases.begin(), slot->model.aliases.end());
        for (const Adapter& adapter : slot->model.adapters) {
            if (is_known(adapter.name)) models.push_back(adapter.name);
        }
    }
    names.insert(names.begin(), models.begin(), models.end());
    const std::string shown(name.substr(0, 128));
    if (models.empty()) return fail(Kind::not_found, "there is no model '{}', nor any other; see torpor model add --help", shown);
    constexpr size_t models_shown = 10;
    const size_t more = models.size() - std::min(models.size(), models_shown);
    models.resize(models.size() - more);
    const std::string near = nearest(shown, names);
    std::string list = fmt::format("{} {} {}", near.empty() ? "; there" : fmt::format("; did you mean {}? There", near),
                                   models.size() + more == 1 ? "is" : "are", fmt::join(models, ", "));
    if (more > 0) list += fmt::format(" and {} more", more);
    return fail(Kind::not_found, "there is no model '{}'{}", shown, list);
}

void Pool::move(Slot& slot, State to) {
    bool has_ended = false;
    {
        std::lock_guard lock(mutex_);
        if (slot.state == to) return;
        if (!may_move(slot.state, to)) {
            log::error("{}: refused to go from {} to {}; this is a mistake in torpord", slot.name, name_of(slot.state),
                       name_of(to));
            return;
        }
        has_ended = has_process(slot.state) && !has_process(to);
        slot.state = to;
        slot.since_ms = now_ms();
        if (!has_process(to)) {
            slot.pid = 0;
            slot.connections.reset();
        }
    }
    if (has_ended) leave(slot);
    log::debug("{}: {}", slot.name, name_of(to));
}

ModelStatus Pool::status_of(const Slot& slot) const {
    ModelStatus status;
    status.model = slot.model;
    status.state = slot.state;
    status.is_frozen = slot.state == State::asleep;
    status.pid = slot.pid;
    status.reserved_bytes = room_.taken_by(slot.name);
    status.waits_for_memory = room_.is_in_line(slot.name);
    status.snapshot_bytes = slot.snapshot_bytes;
    if (prompts_) status.prompt_bytes = prompts_->bytes_of(slot.name);
    if (slot.no_image) status.no_snapshot = slot.no_image->why;
    status.requests = slot.leases;
    status.waiting = slot.queue.size();
    status.since_ms = slot.since_ms;
    status.last_error = slot.last_error;
    status.cold_starts = slot.cold_starts;
    status.thaws = slot.thaws;
    return status;
}

Result<ModelStatus> Pool::status(std::string_view model) {
    ModelStatus status;
    {
        std::lock_guard lock(mutex_);
        const SlotPtr slot = look_up(model);
        if (!slot) return unknown_model(model);
        status = status_of(*slot);
    }
    if (status.pid > 0) status.memory_bytes = memory_of(process_tree(status.pid));
    return status;
}

std::vector<ModelStatus> Pool::statuses() {
    std::vector<ModelStatus> all;
    {
        std::lock_guard lock(mutex_);
        for (const auto& [name, slot] : slots_) {
            if (!slot->removed) all.push_back(status_of(*slot));
        }
    }
    for (ModelStatus& status : all) {
        if (status.pid > 0) status.memory_bytes = memory_of(process_tree(status.pid));
    }
    return all;
}

Result<Model> Pool::find(std::string_view name_or_alias, const std::vector<std::string>& known_to_asker) const {
    std::lock_guard lock(mutex_);
    const SlotPtr slot = look_up(name_or_alias);
    if (!slot) return unknown_model(name_or_alias, known_to_asker);
    return slot->model;
}

std::vector<Model> Pool::models() const {
    std::lock_guard lock(mutex_);
    std::vector<Model> all;
    for (const auto& [name, slot] : slots_) {
        if (!slot->removed) all.push_back(slot->model);
    }
    return all;
}

// A removed model stays until nothing of it runs; then it is forgotten.
void Pool::forget_if_removed(const SlotPtr& slot) {
    {
        std::lock_guard lock(mutex_);
        if (!slot->removed || has_process(slot->state)) return;
        slots_.erase(slot->name);
        room_.leave_line(slot->name);
    }
    fail_all(slot, Error{Kind::not_found, fmt::format("the model {} was removed", slot->name), {}});
    slot->idle_timer.reset();
    slot->quiet_timer.reset();
    slot->dying_timer.reset();
    slot->log_timer.reset();
}

Result<void> Pool::run_on_loop(std::function<void(std::function<void(Result<void>)>)> action) {
    auto promise = std::make_shared<std::promise<Result<void>>>();
    auto future = promise->get_future();
    const bool posted = loop_.post([action = std::move(action), promise] {
        action([promise](Result<void> result) { promise->set_value(std::move(result)); });
    });
    if (!posted) return fail(Kind::unavailable, "torpord is shutting down");
    if (future.wait_for(drain_time_max) != std::future_status::ready) {
        return fail(Kind::timeout, "requests were still running after {}", format_duration(drain_time_max));
    }
    return future.get();
}

Result<void> Pool::suspend(std::string_view model, bool force, bool keep_state) {
    return run_on_loop([this, name = std::string(model), force, keep_state](auto done) {
        std::unique_lock lock(mutex_);
        const SlotPtr slot = look_up(name);
        if (!slot) return done(unknown_model(name));
        lock.unlock();
        if (keep_state) {
            if (auto checked = check_state_can_be_kept(*slot); !checked) return done(checked);
            slot->keep_state = true;
            slot->state_since_ms = now_ms();
        }
        give_order(slot, Order::suspend, force, done);
    });
}

Result<void> Pool::stop(std::string_view model, bool force) {
    return run_on_loop([this, name = std::string(model), force](auto done) {
        std::unique_lock lock(mutex_);
        const SlotPtr slot = look_up(name);
        if (!slot) return done(unknown_model(name));
        lock.unlock();
        give_order(slot, Order::stop, force, done);
    });
}

Result<uint64_t> Pool::remove_snapshot(std::string_view model) {
    auto bytes = std::make_shared<uint64_t>(0);
    auto removed = run_on_loop([this, name = std::string(model), bytes](auto done) {
        if (const auto left = unclaimed_.find(name); left != unclaimed_.end()) {
            *bytes = left->second.bytes;
            drop_unclaimed(name);
            return done({});
        }
        std::unique_lock lock(mutex_);
        const SlotPtr slot = look_up(name);
        if (!slot) return done(unknown_model(name));
        if (!slot->snapshot) return done(fail(Kind::not_found, "{} has no snapshot", slot->name));
        if (slot->state == State::resuming) return done(fail(Kind::conflict, "{} is waking from it just now", slot->name));
        *bytes = slot->snapshot->bytes;
        const bool asleep = slot->state == State::asleep;
        lock.unlock();
        drop_snapshot(slot);
        if (asleep) move(*slot, State::stopped);
        done({});
    });
    if (!removed) return Failure(removed.error());
    return *bytes;
}

std::vector<Pool::SnapshotStatus> Pool::snapshots() {
    auto all = std::make_shared<std::vector<SnapshotStatus>>();
    (void)run_on_loop([this, all](auto done) {
        for (const SlotPtr& slot : all_slots()) {
            if (!slot->snapshot) continue;
            SnapshotStatus status{*slot->snapshot, options_.criu.why_not};
            if (options_.criu.is_offered()) {
                const auto plan = plan_for_snapshot(*slot);
                status.why_void = !plan ? plan.error().message
                                        : why_void(*slot->snapshot, plan->command_line, options_.criu.program).value_or("");
            }
            all->push_back(std::move(status));
        }
        for (const auto& [model, snapshot] : unclaimed_) all->push_back({snapshot, "there is no model of this name"});
        done({});
    });
    return *all;
}

Result<Pool::SnapshotStatus> Pool::verify_snapshot(std::string_view model) {
    std::string name;  // `model` may be an alias
    {
        std::lock_guard lock(mutex_);
        const SlotPtr slot = look_up(model);
        if (!slot) return unknown_model(model);
        name = slot->name;
    }
    for (SnapshotStatus& status : snapshots()) {
        if (status.snapshot.model != name) continue;
        for (const ImagePart part : {ImagePart::lists, ImagePart::pages}) {
            if (!status.why_void.empty()) break;
            status.why_void = why_damaged(status.snapshot.path / "image", status.snapshot.fingerprint, part).value_or("");
        }
        return std::move(status);
    }
    return fail(Kind::not_found, "{} has no snapshot", name);
}

void Pool::shut_down(std::function<void()> done) {
    std::vector<SlotPtr> slots;
    {
        std::lock_guard lock(mutex_);
        closing_ = true;
        for (const auto& [name, slot] : slots_) slots.push_back(slot);
    }
    auto left = std::make_shared<size_t>(slots.size());
    auto finish = [this, left, done = std::move(done)](Result<void>) {
        if (*left > 0 && --*left > 0) return;
        {
            std::lock_guard lock(mutex_);
            room_timer_.reset();
            pressures_.clear();
            for (auto& [name, slot] : slots_) {
                slot->idle_timer.reset();
                slot->quiet_timer.reset();
                slot->dying_timer.reset();
                slot->log_timer.reset();
            }
        }
        done();
    };
    if (slots.empty()) return finish({});
    for (const SlotPtr& slot : slots) {
        fail_all(slot, Error{Kind::unavailable, "torpord is shutting down", {}});
        give_order(slot, Order::suspend, true, finish);
    }
}

}  // namespace torpor::gpu
