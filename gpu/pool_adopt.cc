// What an earlier daemon left running: workers that are proved to be ours are taken back, the rest of what is ours
// is ended, and what cannot be proved is named and left alone. Loop thread, before the loop runs.
#include "base/log.hh"
#include "gpu/limits.hh"
#include "gpu/ownership.hh"
#include "gpu/pool.hh"
#include "gpu/shared_files.hh"
#include "gpu/slot.hh"

#include <algorithm>
#include <filesystem>
#include <map>
#include <set>

namespace torpor::gpu {

namespace {

void end_all(const std::string& whose, const std::string& why, std::vector<pid_t> pids) {
    if (pids.empty()) return;
    log::info("{}: ending processes of an earlier torpord ({}): {}", whose, why, fmt::join(pids, ", "));
    kill_and_wait(pids, orphan_end_time_max);
}

}  // namespace

void Pool::adopt_workers(bool after_crash) {
    const auto rows = options_.catalogue->running();
    if (rows.empty() && !after_crash) return;
    // A dump or thaw that goes on without anybody to wait for its end.
    const auto snapshots = options_.catalogue->snapshots();
    std::vector<pid_t> pids;
    for (const Snapshot& snapshot : snapshots) pids.push_back(number_in(snapshot.fingerprint, "pid"));
    end_all("criu", "it was at work when that one was killed",
            criu_at_work(options_.criu.program, options_.folders.snapshots(), pids));

    std::map<std::string, std::vector<pid_t>> carriers;  // processes by their token
    for (const pid_t pid : all_processes()) {
        if (std::string token = token_of(pid); !token.empty()) carriers[std::move(token)].push_back(pid);
    }
    for (const Catalogue::Running& row : rows) {
        std::vector<pid_t> ours = std::move(carriers[row.token]);
        carriers.erase(row.token);
        const bool is_same = start_time_of(row.pid) == row.start_time && use_of(row.pid) == PidUse::taken;
        const bool is_proven = is_same && std::ranges::find(ours, row.pid) != ours.end();
        if (!is_proven) {
            if (is_same) {
                log::warning("{}: process {} may be its worker of an earlier torpord, but does not carry its token; it is left alone",
                             row.model, row.pid);
                carriers.erase(token_of(row.pid));  // what it does carry is no reason below to end it
            }
            end_all(row.model, "their worker is gone", std::move(ours));
            options_.catalogue->remove_running(row.model);
            continue;
        }
        for (const pid_t pid : session_members(row.pid)) {
            if (std::ranges::find(ours, pid) == ours.end()) ours.push_back(pid);
        }
        if (auto adopted = adopt(row, ours); !adopted) {
            end_all(row.model, adopted.error().message, std::move(ours));
            options_.catalogue->remove_running(row.model);
        }
    }
    remove_leftovers(snapshots);
    // A thaw may have come to its end without a row of it.
    for (const Snapshot& snapshot : snapshots) {
        const std::string token = fact_in(snapshot.fingerprint, "token");
        if (auto found = carriers.find(token); found != carriers.end()) {
            end_all(snapshot.model, "nothing is known of their thaw", std::move(found->second));
        }
        const auto slot = slots_.find(snapshot.model);  // no other thread is there yet
        const bool is_alive = slot != slots_.end() && slot->second->worker && slot->second->worker->plan().token == token;
        if (!is_alive && options_.criu.is_folder_ours) remove_shared_files(snapshot.path / "image");
    }
    // Nor may a cold start, where the disk was full.
    for (auto& [token, pids] : carriers) {
        const bool is_ours = std::ranges::any_of(pids, [&](pid_t pid) { return writes_into(pid, options_.folders.logs()); });
        if (is_ours) end_all("a worker", "nothing is known of their start", std::move(pids));
    }
}

// Images that were never finished, or never written down.
void Pool::remove_leftovers(const std::vector<Snapshot>& snapshots) {
    std::set<std::filesystem::path> known;
    for (const Snapshot& snapshot : snapshots) known.insert(snapshot.path);
    if (!options_.criu.is_folder_ours) return;
    std::error_code code, ignored;
    for (const auto& entry : std::filesystem::directory_iterator(options_.folders.snapshots(), code)) {
        if (!known.contains(entry.path())) std::filesystem::remove_all(entry.path(), ignored);
    }
}

Result<void> Pool::adopt(const Catalogue::Running& row, const std::vector<pid_t>& pids) {
    SlotPtr slot;
    {
        std::lock_guard lock(mutex_);
        const auto found = slots_.find(row.model);
        if (found == slots_.end()) return fail(Kind::not_found, "there is no such model any more");
        slot = found->second;
    }
    auto plan = make_plan(slot->model, row.endpoint);
    if (!plan) return Failure(plan.error());
    if (command_text(plan->command_line) != row.command) return fail(Kind::conflict, "the engine's arguments changed");
    std::error_code ignored;
    if (std::filesystem::exists(image_beside(*slot), ignored)) {
        // CRIU works inside of the process that it dumps; what it left there is not known.
        return fail(Kind::conflict, "it was being imaged");
    }
    if (!is_listener(row.endpoint, pids)) return fail(Kind::conflict, "it does not listen on its socket");
    give_token(*plan, row.token);
    auto worker = Worker::adopt(loop_, *plan, row.pid, [this, slot](Ending ending) { worker_ended(slot, ending); });
    if (!worker) return Failure(worker.error());
    slot->worker = std::move(*worker);
    {
        std::lock_guard lock(mutex_);
        slot->state = State::starting;  // where it begins; from here on the table holds
        slot->pid = row.pid;
        ++slot->generation;
    }
    enter_unasked(*slot);
    slot->worker->await_ready([this, slot](Result<void> ready) {
        if (ready) {
            log::info("{}: its worker of an earlier torpord (pid {}) is taken back", slot->name, slot->worker->pid());
            return became_ready(slot, Wake::warm);
        }
        log::warning("{}: its worker of an earlier torpord is ended: {}", slot->name, ready.error().message);
        move(*slot, State::suspending);
        slot->worker->end(true);
    });
    return {};
}

}  // namespace torpor::gpu
