#include "gpu/lease.hh"

#include "gpu/pool.hh"
#include "gpu/slot.hh"

namespace torpor::gpu {

std::string_view name_of(Wake wake) {
    switch (wake) {
        case Wake::warm: return "warm";
        case Wake::thawed: return "thawed";
        case Wake::cold: return "cold";
    }
    return "";
}

Lease::Lease(Pool* pool, std::shared_ptr<Slot> slot, uint64_t generation, std::shared_ptr<Connections> connections)
    : held_(slot.get(), Release{pool, generation, slot}), generation_(generation), connections_(std::move(connections)) {}

Lease::~Lease() = default;

void Lease::Release::operator()(Slot*) const {
    pool->release(slot, generation);
}

PromptKeeper* Lease::prompts() const {
    return held_->prompts.get();
}

const std::string& Lease::model() const {
    return held_->name;
}

}  // namespace torpor::gpu
