// [provider.NAME] of config.toml, and the providers that are known without one.
#pragma once

#include "base/error.hh"
#include "base/toml.hh"
#include "daemon/llm/provider.hh"

#include <array>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace torpor::llm {

// [provider.NAME.models."MODEL"].
struct ModelConfig {
    std::vector<std::string> aliases;
    ModelFacts facts;                        // its provider and name are set
};

struct ProviderConfig {
    std::string name;
    std::string wire;                        // empty: as the built-in one of this name
    std::string base_url;                    // the same
    std::string key_env;                     // a variable of torpord's environment
    std::string key_file;
    std::vector<std::pair<std::string, std::string>> headers;
    std::vector<ModelConfig> models;
};

// One row for each provider that needs no table in config.toml.
struct KnownProvider {
    std::string_view name;
    std::string_view wire;
    std::string_view base_url;
    std::string_view key_env;                       // empty: it needs no key
    std::array<std::string_view, 6> prefixes = {};  // of model names that are its own
};
std::span<const KnownProvider> known_providers();
const KnownProvider* find_known(std::string_view name);

// The table `provider` of config.toml. Errors name the line; `file` is for messages.
Result<std::vector<ProviderConfig>> read_providers(const toml::table& table, const std::string& file);

// Every key of [provider.NAME] and of its models' tables; packaging/config.example.toml must show them all.
std::vector<std::string> provider_keys();

}  // namespace torpor::llm
