// All providers of one daemon (provider.hh has what they are for).
#pragma once

#include "base/folders.hh"
#include "daemon/llm/gguf.hh"
#include "daemon/llm/http_provider.hh"
#include "daemon/llm/provider.hh"
#include "daemon/llm/provider_config.hh"
#include "gpu/pool.hh"

#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

namespace torpor::llm {

class AllProviders final : public Providers {
  public:
    // `pool`: the local models. It must outlive this.
    AllProviders(Folders folders, const gpu::Pool& pool) : folders_(std::move(folders)), pool_(pool) {}

    // From now on these, and this model where none is named (empty: the pool's only one). Any thread.
    void set(std::vector<ProviderConfig> providers, std::string default_model);

    Result<Chosen> choose(std::string_view model) const override;

    struct Listed {
        std::string name, wire, base_url;
        bool has_key = false;     // or needs none
        std::string key_source;   // where it would be: "ANTHROPIC_API_KEY", a file; empty: it needs none
        std::vector<std::string> models;  // of the configuration, or of the pool
    };
    std::vector<Listed> list() const;

  private:
    struct Entry {
        ProviderConfig config;
        std::string wire, base_url, key_env;  // with what is built in
    };
    std::vector<Entry> entries() const;
    Result<std::string> key_of(const Entry& entry) const;
    Result<Chosen> choose_from(const Entry& entry, const std::string& model) const;
    Result<Chosen> choose_local(const std::string& model) const;
    Failure not_found(std::string_view model) const;
    GgufFacts gguf_of(const std::string& path) const;

    const Folders folders_;
    const gpu::Pool& pool_;
    mutable HttpClient client_;
    mutable std::mutex mutex_;
    std::vector<ProviderConfig> configured_;              // guarded by mutex_
    std::string default_model_;                           // guarded by mutex_
    mutable std::map<std::string, std::pair<int64_t, GgufFacts>> gguf_;  // guarded by mutex_; by path, with the file's time
};

// Where `torpor login NAME` puts the key.
std::filesystem::path key_file_of(const Folders& folders, std::string_view provider);

}  // namespace torpor::llm
