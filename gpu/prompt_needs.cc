// What a request needs of a worker's slots, and which it will take: decisions only. mutex_ is held throughout.
#include "gpu/limits.hh"
#include "gpu/prompt_keeper.hh"

#include <algorithm>

namespace torpor::gpu {

namespace {

// A new request's tokens are not known before the engine has made them: English has about four bytes to one.
uint64_t tokens_at_most(const Conversation& conversation) {
    constexpr uint64_t bytes_per_token = 3, for_the_answer = 256;
    return (conversation.blocks.size() + 1) * Conversation::block_bytes / bytes_per_token + for_the_answer;
}

// Where it chooses itself, the engine takes the slot whose prompt is the beginning of so much of the new one.
constexpr size_t likeness_min_percent = 50;

}  // namespace

bool PromptKeeper::is_dirty(const Held& held) {
    return !held.is_busy && !held.is_saved && held.tokens > 0 && held.conversation.blocks.size() >= prompt_blocks_min;
}

const PromptKeeper::Held* PromptKeeper::find(uint64_t note) const {
    const auto found = std::ranges::find(held_, note, &Held::note);
    return found == held_.end() ? nullptr : &*found;
}

PromptKeeper::Held* PromptKeeper::find(uint64_t note) {
    const auto found = std::ranges::find(held_, note, &Held::note);
    return found == held_.end() ? nullptr : &*found;
}

PromptKeeper::Need PromptKeeper::need_of(const Conversation& conversation) const {
    Need need;
    const size_t size = conversation.blocks.size();
    const Held *best = nullptr, *oldest = nullptr, *short_one = nullptr;
    size_t best_blocks = 0, busy = 0;
    for (const Held& held : held_) {
        if (held.is_busy) {
            ++busy;
            continue;
        }
        if (const size_t blocks = held.conversation.in_common(conversation); blocks > best_blocks) {
            best_blocks = blocks;
            best = &held;
        }
        if (held.conversation.blocks.empty()) short_one = &held;
        if (oldest == nullptr || held.used_at < oldest->used_at) oldest = &held;
    }
    if (slots_ > 0 && busy >= slots_) return need;  // it waits for whichever is free first
    auto state = size >= prompt_blocks_min ? store_.best(model_, conversation) : std::nullopt;
    if (state && state->blocks >= best_blocks + prompt_blocks_min) need.give_back = std::move(state);
    const bool is_full = slots_ > 0 && held_.size() >= slots_;
    const Held* replaced = is_full ? oldest : nullptr;
    if (size == 0 && short_one != nullptr) replaced = short_one;
    if (!need.give_back && best != nullptr && best_blocks * 100 >= size * likeness_min_percent) replaced = best;
    if (replaced != nullptr) {
        need.replaced = replaced->note;
        const size_t kept = need.give_back ? 0 : replaced->conversation.in_common(conversation);
        const bool loses = replaced->conversation.blocks.size() - kept >= prompt_blocks_min;
        if (is_dirty(*replaced) && loses) need.saves.push_back(replaced->note);
    }
    make_room(conversation, need);
    return need;
}

// The slots may share one context: then the engine drops what others hold to make room for a long one, and asks nobody.
void PromptKeeper::make_room(const Conversation& conversation, Need& need) const {
    if (capacity_tokens_ == 0) return;
    uint64_t sum = tokens_at_most(conversation);
    std::vector<const Held*> idle;
    for (const Held& held : held_) {
        if (held.note == need.replaced) continue;
        sum += held.is_busy ? tokens_at_most(held.conversation) : held.tokens;
        if (!held.is_busy) idle.push_back(&held);
    }
    std::ranges::sort(idle, {}, &Held::used_at);
    for (const Held* held : idle) {
        if (sum <= capacity_tokens_) return;
        sum -= std::min(sum, held->tokens);
        if (is_dirty(*held)) need.saves.push_back(held->note);
        need.clear.push_back(held->note);
    }
}

// A slot that nothing is known of.
int64_t PromptKeeper::free_slot() const {
    for (int64_t slot = 0; slot < static_cast<int64_t>(slots_); ++slot) {
        if (std::ranges::find(held_, slot, &Held::slot) == held_.end()) return slot;
    }
    return -1;
}

// `slot`: that it must have, or -1.
PromptSeatPtr PromptKeeper::take_seat(const Conversation& conversation, bool may_choose, uint64_t replaced, int64_t slot) {
    if (const Held* held = find(replaced)) {
        if (slot < 0) slot = held->slot;
        std::erase_if(held_, [replaced](const Held& other) { return other.note == replaced; });
    } else if (slot < 0) {
        slot = free_slot();
    }
    std::erase_if(held_, [slot](const Held& other) { return slot >= 0 && other.slot == slot && !other.is_busy; });
    constexpr size_t notes_max = 256;  // more than any engine has slots; requests beyond them wait in its queue
    if (held_.size() >= notes_max) return {};
    may_choose = may_choose && !conversation.names_slot;
    held_.push_back({.note = ++last_note_, .conversation = conversation, .slot = may_choose ? slot : -1, .tokens = 0,
                     .is_busy = true, .is_saved = false, .used_at = Clock::now()});
    return std::make_shared<PromptSeat>(shared_from_this(), last_note_, may_choose ? slot : -1);
}

// Finds the slots of those that the engine has placed, by the tokens that they hold: all of the prompt and of the answer,
// but for the answer's last one, which was never read. Of several the one that was used last is meant.
void PromptKeeper::locate(const EngineSlots& slots) {
    const auto fits = [](const Held& held, const EngineSlot& slot) {
        return !slot.is_busy && held.tokens > 0 && (slot.tokens == held.tokens || slot.tokens + 1 == held.tokens);
    };
    std::ranges::sort(held_, std::greater<>(), &Held::used_at);
    for (Held& held : held_) {
        if (held.is_busy) continue;
        const EngineSlot* found = nullptr;
        for (const EngineSlot& slot : slots) {
            const bool is_taken = std::ranges::any_of(held_, [&](const Held& other) { return &other != &held && other.slot == slot.id; });
            const bool may_be = held.slot == slot.id || (held.slot < 0 && !is_taken);
            if (may_be && fits(held, slot) && (found == nullptr || slot.task > found->task)) found = &slot;
        }
        // One that is known and holds something else now: somebody else's request went there.
        held.slot = found == nullptr ? -1 : found->id;
    }
}

// Where a state is to be put: where what is replaced lies, or was cleared, or in an empty slot, or in the oldest one.
int64_t PromptKeeper::slot_to_fill(const Need& need, const EngineSlots& slots) const {
    if (const Held* held = find(need.replaced); held != nullptr && held->slot >= 0) return held->slot;
    const EngineSlot* best = nullptr;
    for (const EngineSlot& slot : slots) {
        const auto holder = std::ranges::find(held_, slot.id, &Held::slot);
        if (slot.is_busy || holder != held_.end()) continue;
        if (best == nullptr || (slot.tokens == 0 && best->tokens > 0) || (best->tokens > 0 && slot.task < best->task)) best = &slot;
    }
    return best == nullptr ? -1 : best->id;
}

}  // namespace torpor::gpu
