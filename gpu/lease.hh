// The right to use a worker now. While one is held the worker does not sleep.
#pragma once

#include "gpu/connections.hh"

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

namespace torpor::gpu {

class Pool;
class PromptKeeper;
struct Slot;

// How the worker came to be ready for the one who asked.
enum class Wake { warm, thawed, cold };
std::string_view name_of(Wake wake);

// Movable; released by destruction, from any thread. Must not outlive the pool.
class Lease {
  public:
    Lease(Pool* pool, std::shared_ptr<Slot> slot, uint64_t generation, std::shared_ptr<Connections> connections);
    Lease(Lease&&) noexcept = default;
    Lease& operator=(Lease&&) noexcept = default;
    ~Lease();

    Connections& connections() const { return *connections_; }
    // Names this very process among all that ever served the model.
    uint64_t generation() const { return generation_; }
    // The model's own name, also where an alias was asked for.
    const std::string& model() const;
    // Null if the state of prompts is not kept.
    PromptKeeper* prompts() const;

    Wake wake = Wake::warm;
    double queue_ms = 0;  // waited for a worker that was there
    double wake_ms = 0;   // waited for one that was not

  private:
    struct Release {
        Pool* pool;
        uint64_t generation;
        std::shared_ptr<Slot> slot;
        void operator()(Slot*) const;
    };
    std::unique_ptr<Slot, Release> held_;
    uint64_t generation_;
    std::shared_ptr<Connections> connections_;
};

}  // namespace torpor::gpu
