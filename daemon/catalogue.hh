// The pool's catalogue over the store: what gpu/ asks for, as rows. Writes are posted, since they come
// from the loop, which must not wait for the disk.
#pragma once

#include "gpu/snapshot.hh"
#include "store/store.hh"

namespace torpor {

class StoreCatalogue final : public gpu::Catalogue {
  public:
    explicit StoreCatalogue(store::Store& store) : store_(store) {}

    std::vector<gpu::Snapshot> snapshots() override;
    void put(const gpu::Snapshot& snapshot) override;
    void remove(const std::string& model) override;
    std::map<std::string, gpu::Learned> learned() override;
    void put_learned(const std::string& model, const gpu::Learned& learned) override;
    void note_start(const std::string& model, bool thawed) override;
    std::vector<History> histories() override;
    std::vector<Running> running() override;
    void put_running(const Running& running) override;
    void remove_running(const std::string& model) override;

  private:
    store::Store& store_;
};

}  // namespace torpor
