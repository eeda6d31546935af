// What is asked of the engine, one job after the other. Loop thread, where nothing else is said.
#include "gpu/prompt_keeper.hh"

#include "base/log.hh"
#include "base/text.hh"
#include "gpu/limits.hh"
#include "gpu/snapshot.hh"

#include <simdjson.h>

#include <algorithm>
#include <utility>

namespace torpor::gpu {

namespace {

// Of the environment, which the engine may read settings from.
std::string environment_line(const Model& model) {
    std::string text;
    for (const auto& [name, value] : model.env) text += name + "=" + value + "\n";
    return fmt::format("environment {:016x}\n", std::hash<std::string>{}(text));
}

// Whether all slots share one context: llama-server's own choice where it also chooses their number.
bool shares_context(const Model& model) {
    const auto has = [&](std::initializer_list<std::string_view> flags) {
        return std::ranges::any_of(model.args, [&](const std::string& argument) {
            return std::ranges::find(flags, std::string_view(argument).substr(0, argument.find('='))) != flags.end();
        });
    };
    if (has({"-no-kvu", "--no-kv-unified"})) return false;
    return has({"-kvu", "--kv-unified"}) || !(has({"-np", "--parallel"}) || model.env.contains("LLAMA_ARG_N_PARALLEL"));
}

}  // namespace

PromptSeat::~PromptSeat() {
    keeper_->end(note_, tokens_);
}

PromptKeeper::PromptKeeper(EventLoop& loop, PromptStore& store, std::string model)
    : loop_(loop), store_(store), model_(std::move(model)) {}

PromptKeeper::~PromptKeeper() = default;

std::optional<PromptSeatPtr> PromptKeeper::begin(const Conversation& conversation, bool may_choose) {
    std::lock_guard lock(mutex_);
    if (conversation.names_adapters) {
        is_off_ = true;
        held_.clear();
    }
    if (is_off_) return PromptSeatPtr();
    // As long as nothing long was asked for, nothing is worth a question about the slots.
    if (slots_ == 0) return conversation.blocks.size() < prompt_blocks_min ? std::optional(PromptSeatPtr()) : std::nullopt;
    const Need need = need_of(conversation);
    if (!need.is_nothing()) return {};
    return take_seat(conversation, may_choose, need.replaced, -1);
}

void PromptKeeper::prepare(Conversation conversation, bool may_choose, std::function<void(PromptSeatPtr)> done) {
    loop_.post([self = shared_from_this(), conversation = std::move(conversation), may_choose, done = std::move(done)] {
        self->enqueue([self, conversation, may_choose, done](const Next& next) {
            const auto deadline = Clock::now() + prompt_step_time_max;
            const auto sit = [self, conversation, may_choose, done, next](uint64_t replaced, int64_t slot) {
                PromptSeatPtr seat;
                {
                    std::lock_guard lock(self->mutex_);
                    if (!self->is_off_) seat = self->take_seat(conversation, may_choose, replaced, slot);
                }
                done(std::move(seat));
                next();
            };
            self->look(deadline, [self, conversation, deadline, sit](EngineSlots slots) {
                auto need = std::make_shared<Need>();
                {
                    std::lock_guard lock(self->mutex_);
                    if (!self->is_off_) *need = self->need_of(conversation);
                }
                self->save_each(need->saves, deadline, [self, need, slots, sit] {
                    self->clear_each(need->clear, [self, need, slots, sit] {
                        int64_t slot = -1;
                        if (need->give_back) {
                            std::lock_guard lock(self->mutex_);
                            slot = self->slot_to_fill(*need, slots);
                        }
                        if (slot < 0) return sit(need->replaced, -1);
                        self->give_back(*need->give_back, slot, [need, slot, sit](bool given) { sit(need->replaced, given ? slot : -1); });
                    });
                });
            });
        });
    });
}

void PromptKeeper::end(uint64_t note, uint64_t tokens) {
    std::lock_guard lock(mutex_);
    Held* held = find(note);
    if (held == nullptr) return;
    held->is_busy = false;
    held->tokens = tokens;
    held->used_at = Clock::now();
    while (slots_ > 0 && held_.size() > slots_) {  // some waited for a slot, and took whichever was free
        auto oldest = held_.end();
        for (auto at = held_.begin(); at != held_.end(); ++at) {
            if (!at->is_busy && (oldest == held_.end() || at->used_at < oldest->used_at)) oldest = at;
        }
        if (oldest == held_.end()) return;
        held_.erase(oldest);
    }
}

void PromptKeeper::worker_is_ready(const WorkerPlan& plan, pid_t pid) {
    plan_ = plan;
    pid_ = pid;
    fingerprint_.clear();
    std::lock_guard lock(mutex_);
    is_off_ = !plan.keeps_prompts;
    slots_ = 0;
    held_.clear();
}

void PromptKeeper::worker_has_ended() {
    plan_.reset();
    if (probe_) {
        probe_.reset();
        loop_.post([answered = std::exchange(answered_, nullptr)] { answered(0, ""); });
    }
    std::lock_guard lock(mutex_);
    is_off_ = true;
    held_.clear();
}

void PromptKeeper::save_all(std::function<void()> done) {
    {
        std::lock_guard lock(mutex_);
        if (!std::ranges::any_of(held_, is_dirty)) {
            if (!is_at_work_) return done();
        }
    }
    enqueue([self = shared_from_this(), done = std::move(done)](const Next& next) {
        const auto deadline = Clock::now() + prompt_save_time_max;
        self->look(deadline, [self, deadline, done, next](const EngineSlots&) {
            std::vector<uint64_t> notes;
            {
                std::lock_guard lock(self->mutex_);
                for (const Held& held : self->held_) {
                    if (is_dirty(held)) notes.push_back(held.note);
                }
            }
            self->save_each(std::move(notes), deadline, [done, next] {
                done();
                next();
            });
        });
    });
}

void PromptKeeper::enqueue(std::function<void(Next)> job) {
    jobs_.push_back(std::move(job));
    if (!is_at_work_) run_next();
}

void PromptKeeper::run_next() {
    is_at_work_ = !jobs_.empty();
    if (!is_at_work_) return;
    const auto job = std::move(jobs_.front());
    jobs_.pop_front();
    // Not at once: a long line of jobs with nothing to wait for would be a deep stack.
    job([self = shared_from_this()] { self->loop_.post([self] { self->run_next(); }); });
}

void PromptKeeper::ask(const std::string& path, const std::string& body, Clock::time_point deadline, Answered answered) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now());
    if (!plan_ || left.count() <= 0) return answered(0, "");
    answered_ = std::move(answered);
    probe_ = std::make_unique<Probe>(
        loop_, plan_->endpoint, path, body,
        [self = shared_from_this()](int status) {
            const auto asked = std::move(self->probe_);
            std::exchange(self->answered_, nullptr)(status, asked->body());
        },
        left);
}

// What the engine says of its slots. An engine that says nothing has none that we could use.
void PromptKeeper::look(Clock::time_point deadline, std::function<void(EngineSlots)> seen) {
    ask("/slots", "", deadline, [self = shared_from_this(), seen = std::move(seen)](int status, const std::string& body) {
        EngineSlots slots;
        uint64_t context = 0;
        simdjson::dom::parser parser;
        simdjson::dom::array array;
        if (status == 200 && !parser.parse(body).get(array)) {
            for (const simdjson::dom::element element : array) {
                EngineSlot slot;
                // Before its first task a slot has neither tokens nor task.
                const bool is_sound = !element["id"].get(slot.id) && !element["is_processing"].get(slot.is_busy) && !element["n_ctx"].get(context);
                if (element["n_prompt_tokens"].get(slot.tokens)) slot.tokens = 0;
                if (element["id_task"].get(slot.task)) slot.task = -1;
                if (is_sound) slots.push_back(slot);
            }
        }
        {
            std::lock_guard lock(self->mutex_);
            if (status != 0 && slots.empty()) self->is_off_ = true;
            if (!slots.empty()) {
                self->slots_ = slots.size();
                self->capacity_tokens_ = context * (self->plan_ && shares_context(self->plan_->model) ? 1 : slots.size());
                self->locate(slots);
            }
        }
        seen(std::move(slots));
    });
}

void PromptKeeper::save_each(std::vector<uint64_t> notes, Clock::time_point deadline, Next next) {
    if (notes.empty()) return next();
    const uint64_t note = notes.back();
    notes.pop_back();
    save(note, deadline, [self = shared_from_this(), notes = std::move(notes), deadline, next = std::move(next)]() mutable {
        self->save_each(std::move(notes), deadline, std::move(next));
    });
}

// But for a few tokens that are soon read again.
bool PromptKeeper::is_on_disk(const Held& held) const {
    const auto known = store_.best(model_, held.conversation);
    return known && known->state.conversation == held.conversation && known->state.tokens + prompt_tokens_min >= held.tokens;
}

Result<void> PromptKeeper::check_save(const Held& held) const {
    if (held.slot < 0) return fail(Kind::not_found, "the engine does not hold it any more");
    return store_.check_room(static_cast<uint64_t>(bytes_per_token_ * static_cast<double>(held.tokens)));
}

void PromptKeeper::save(uint64_t note, Clock::time_point deadline, Next next) {
    Held held;
    {
        std::lock_guard lock(mutex_);
        Held* found = find(note);
        if (found == nullptr) return next();
        found->is_saved = true;  // whatever comes of it: it is not tried again
        held = *found;
    }
    auto state = std::make_shared<PromptState>();
    const auto finish = [self = shared_from_this(), state, next, start = Clock::now()](const Result<void>& kept) {
        if (!kept) {
            log::debug("{}: the state of a prompt was not saved: {}", self->model_, kept.error().text());
        } else {
            log::info("{}: state of a prompt of {} tokens saved ({} in {} ms)", self->model_, state->tokens, format_bytes(state->bytes),
                      std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - start).count());
        }
        next();
    };
    if (is_on_disk(held)) return next();
    if (auto checked = check_save(held); !checked) return finish(checked);
    state->key = PromptStore::new_key(held.conversation);
    state->conversation = held.conversation;
    state->fingerprint = fingerprint();
    ask(fmt::format("/slots/{}?action=save", held.slot), fmt::format(R"({{"filename":"{}"}})", state->file()), deadline,
        [self = shared_from_this(), held, state, finish](int status, const std::string& body) {
            simdjson::dom::parser parser;
            simdjson::dom::element answer;
            const bool is_saved = status == 200 && !parser.parse(body).get(answer) && !answer["n_saved"].get(state->tokens) &&
                                  !answer["n_written"].get(state->bytes);
            const bool is_it = is_saved && (state->tokens == held.tokens || state->tokens + 1 == held.tokens);
            if (is_it) self->bytes_per_token_ = static_cast<double>(state->bytes) / static_cast<double>(state->tokens);
            auto kept = std::make_shared<Result<void>>();
            self->loop_.run_aside(
                [self, state, kept, is_it, status] {
                    if (is_it) {
                        *kept = self->store_.keep(self->model_, *state);
                    } else {
                        self->store_.remove(self->model_, state->key);
                        *kept = fail(Kind::engine, "the engine did not save it (its status is {})", status);
                    }
                },
                [kept, finish] { finish(*kept); });
        });
}

void PromptKeeper::clear_each(std::vector<uint64_t> notes, Next next) {
    if (notes.empty()) return next();
    int64_t slot = -1;
    {
        std::lock_guard lock(mutex_);
        if (const Held* held = find(notes.back()); held != nullptr && !held->is_busy) slot = held->slot;
        std::erase_if(held_, [&](const Held& held) { return held.note == notes.back() && !held.is_busy; });
    }
    notes.pop_back();
    const auto others = [self = shared_from_this(), notes = std::move(notes), next = std::move(next)](int, const std::string&) {
        self->clear_each(notes, next);
    };
    if (slot < 0) return others(0, "");
    ask(fmt::format("/slots/{}?action=erase", slot), "{}", Clock::now() + prompt_step_time_max, others);
}

// Only what is whole and was made by the same engine from the same weights goes to the engine, which would believe it.
void PromptKeeper::give_back(const PromptStore::Match& match, int64_t slot, std::function<void(bool)> done) {
    if (!plan_) return done(false);
    const auto start = Clock::now();
    auto wrong = std::make_shared<std::optional<std::string>>(why_changed(match.state.fingerprint, plan_->command_line, ""));
    if (!match.state.fingerprint.ends_with(environment_line(plan_->model))) *wrong = "the environment changed";
    loop_.run_aside(
        [self = shared_from_this(), state = match.state, wrong] {
            if (!*wrong) *wrong = self->store_.why_damaged(self->model_, state);
            if (*wrong) return self->store_.remove(self->model_, state.key);
            self->store_.note_used(self->model_, state.key);
        },
        [self = shared_from_this(), state = match.state, slot, wrong, start, done = std::move(done)] {
            if (*wrong) {
                log::info("{}: the state of a prompt is not given back: {}", self->model_, **wrong);
                return done(false);
            }
            self->ask(fmt::format("/slots/{}?action=restore", slot), fmt::format(R"({{"filename":"{}"}})", state.file()),
                      Clock::now() + prompt_step_time_max, [self, state, start, done](int status, const std::string&) {
                          if (status == 200) {
                              log::info("{}: state of a prompt of {} tokens given back ({} in {} ms)", self->model_, state.tokens,
                                        format_bytes(state.bytes),
                                        std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - start).count());
                          } else {
                              log::info("{}: the engine did not take the state of a prompt back (its status is {})", self->model_, status);
                              if (status != 0) self->store_.remove(self->model_, state.key);
                          }
                          done(status == 200);
                      });
        });
}

const std::string& PromptKeeper::fingerprint() {
    if (fingerprint_.empty() && plan_) {
        fingerprint_ = take_fingerprint(pid_, plan_->model, plan_->command_line, "") + environment_line(plan_->model);
    }
    return fingerprint_;
}

}  // namespace torpor::gpu
