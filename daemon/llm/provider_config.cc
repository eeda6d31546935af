#include "daemon/llm/provider_config.hh"

#include "base/text.hh"
#include "daemon/llm/wire.hh"

#include <algorithm>
#include <array>

namespace torpor::llm {

namespace {

constexpr std::array known{
    KnownProvider{"anthropic", "anthropic-messages", "https://api.anthropic.com/v1", "ANTHROPIC_API_KEY", {"claude-"}},
    KnownProvider{"openai", "openai-responses", "https://api.openai.com/v1", "OPENAI_API_KEY", {"gpt-", "chatgpt-", "codex-", "o1", "o3", "o4"}},
    KnownProvider{"openrouter", "openai-chat", "https://openrouter.ai/api/v1", "OPENROUTER_API_KEY", {}},
    KnownProvider{"xai", "openai-chat", "https://api.x.ai/v1", "XAI_API_KEY", {"grok-"}},
    KnownProvider{"dashscope", "openai-chat", "https://dashscope-intl.aliyuncs.com/compatible-mode/v1", "DASHSCOPE_API_KEY", {"qwen-", "qwen3-", "qwq-"}},
    KnownProvider{"ollama", "openai-chat", "http://127.0.0.1:11434/v1", "", {}},
    KnownProvider{"lmstudio", "openai-chat", "http://127.0.0.1:1234/v1", "", {}},
    KnownProvider{"vllm", "openai-chat", "http://127.0.0.1:8000/v1", "", {}},
};

constexpr std::array<std::string_view, 6> keys{"wire", "base_url", "key_env", "key_file", "headers", "models"};
constexpr std::array<std::string_view, 6> model_keys{"aliases", "context", "output", "price", "tools", "images"};
constexpr std::array<std::string_view, 4> price_keys{"input", "output", "cache_read", "cache_write"};

template <class... Args>
Failure at(const std::string& file, const toml::node& node, fmt::format_string<Args...> format, Args&&... args) {
    return fail(Kind::invalid, "{}:{}: {}", file, node.source().begin.line, fmt::format(format, std::forward<Args>(args)...));
}

template <size_t Size>
Result<void> check_keys(const toml::table& table, const std::array<std::string_view, Size>& all, const std::string& where, const std::string& file) {
    for (const auto& [name, node] : table) {
        if (std::ranges::find(all, name.str()) != all.end()) continue;
        const std::vector<std::string> names(all.begin(), all.end());
        return at(file, node, "'{}' is not a key of {}{}", name.str(), where, did_you_mean(name.str(), names));
    }
    return {};
}

Result<void> take_text(const toml::table& table, std::string_view key, std::string& out, const std::string& file) {
    const toml::node* node = table.get(key);
    if (node == nullptr) return {};
    const auto* text = node->as_string();
    if (text == nullptr) return at(file, *node, "{} must be a text in quotes", key);
    out = text->get();
    return {};
}

Result<void> take_price(const toml::node& node, ModelFacts& facts, const std::string& file) {
    const auto* table = node.as_table();
    if (table == nullptr) return at(file, node, "price must be a table, like {{ input = 3.0, output = 15.0 }}, for a million tokens");
    if (auto good = check_keys(*table, price_keys, "a price", file); !good) return good;
    facts.price = ModelFacts::Price{};
    ModelFacts::Price& price = *facts.price;
    const std::pair<std::string_view, double*> places[] = {
        {"input", &price.input}, {"output", &price.output}, {"cache_read", &price.cache_read}, {"cache_write", &price.cache_write}};
    for (const auto& [key, place] : places) {
        const toml::node* one = table->get(key);
        if (one == nullptr) {
            *place = price.input;  // of the cache: as other input
            continue;
        }
        const auto number = one->value<double>();
        if (!number || *number < 0) return at(file, *one, "{} must be a number, 0 or more", key);
        *place = *number;
    }
    return {};
}

Result<void> take_count(const toml::table& table, std::string_view key, uint64_t& out, const std::string& file) {
    const toml::node* node = table.get(key);
    if (node == nullptr) return {};
    const auto number = node->value_exact<int64_t>();
    if (!number || *number <= 0) return at(file, *node, "{} must be a number of tokens", key);
    out = static_cast<uint64_t>(*number);
    return {};
}

Result<void> take_truth(const toml::table& table, std::string_view key, bool& out, const std::string& file) {
    const toml::node* node = table.get(key);
    if (node == nullptr) return {};
    const auto truth = node->value_exact<bool>();
    if (!truth) return at(file, *node, "{} must be true or false", key);
    out = *truth;
    return {};
}

Result<ModelConfig> read_model(const toml::node& node, const std::string& provider, const std::string& name, const std::string& file) {
    const auto* table = node.as_table();
    if (table == nullptr) return at(file, node, "[provider.{}.models.\"{}\"] must be a table", provider, name);
    if (auto good = check_keys(*table, model_keys, fmt::format("[provider.{}.models.\"{}\"]", provider, name), file); !good) return Failure(good.error());
    ModelConfig model;
    model.facts.provider = provider;
    model.facts.model = name;
    if (const toml::node* aliases = table->get("aliases")) {
        const auto* list = aliases->as_array();
        if (list == nullptr || !std::ranges::all_of(*list, [](const toml::node& one) { return one.is_string(); })) {
            return at(file, *aliases, "aliases must be a list of texts");
        }
        for (const toml::node& one : *list) model.aliases.push_back(one.as_string()->get());
    }
    if (auto taken = take_count(*table, "context", model.facts.context_tokens, file); !taken) return Failure(taken.error());
    if (auto taken = take_count(*table, "output", model.facts.output_tokens_max, file); !taken) return Failure(taken.error());
    if (auto taken = take_truth(*table, "tools", model.facts.takes_tools, file); !taken) return Failure(taken.error());
    if (auto taken = take_truth(*table, "images", model.facts.takes_images, file); !taken) return Failure(taken.error());
    if (const toml::node* price = table->get("price")) {
        if (auto taken = take_price(*price, model.facts, file); !taken) return Failure(taken.error());
    }
    return model;
}

// A key goes over the network readable by nobody else.
bool is_private(std::string_view url) {
    for (const std::string_view safe : {"https://", "http://127.0.0.1", "http://localhost", "http://[::1]"}) {
        if (url.starts_with(safe)) return true;
    }
    return false;
}

Result<void> check_provider(const ProviderConfig& provider, const toml::node& node, const std::string& file) {
    const KnownProvider* like = find_known(provider.name);
    if (provider.wire.empty() && like == nullptr) return at(file, node, "[provider.{}] needs a wire: anthropic-messages, openai-chat or openai-responses", provider.name);
    if (provider.base_url.empty() && like == nullptr) return at(file, node, "[provider.{}] needs a base_url, like https://api.example.com/v1", provider.name);
    if (!provider.wire.empty() && find_wire(provider.wire) == nullptr) {
        std::vector<std::string> names;
        for (const Wire* wire : wires()) names.emplace_back(wire->name);
        return at(file, node, "'{}' is no wire; there are {}", provider.wire, fmt::join(names, ", "));
    }
    if (!provider.base_url.empty() && !provider.base_url.starts_with("http://") && !provider.base_url.starts_with("https://")) {
        return at(file, node, "base_url must begin with https:// or http://");
    }
    const bool has_key = !provider.key_env.empty() || !provider.key_file.empty();
    if (has_key && !provider.base_url.empty() && !is_private(provider.base_url)) {
        return at(file, node, "base_url is http, so the key would travel readable by all in between: use https, or leave the key out");
    }
    return {};
}

Result<ProviderConfig> read_provider(const toml::node& node, const std::string& name, const std::string& file) {
    const auto* table = node.as_table();
    if (table == nullptr) return at(file, node, "[provider.{}] must be a table", name);
    if (name == "local") return at(file, node, "'local' are the models of this machine; give the provider another name");
    if (name.empty() || name.find_first_of("/ ") != std::string::npos) return at(file, node, "'{}' is no name for a provider: it has a slash or a space", name);
    if (auto good = check_keys(*table, keys, fmt::format("[provider.{}]", name), file); !good) return Failure(good.error());
    ProviderConfig provider;
    provider.name = name;
    const std::pair<std::string_view, std::string*> texts[] = {
        {"wire", &provider.wire}, {"base_url", &provider.base_url}, {"key_env", &provider.key_env}, {"key_file", &provider.key_file}};
    for (const auto& [key, place] : texts) {
        if (auto taken = take_text(*table, key, *place, file); !taken) return Failure(taken.error());
    }
    while (provider.base_url.ends_with('/')) provider.base_url.pop_back();
    if (const toml::node* headers = table->get("headers")) {
        const auto* pairs = headers->as_table();
        if (pairs == nullptr) return at(file, *headers, "headers must be a table of texts, like {{ x-title = \"Torpor\" }}");
        for (const auto& [header, value] : *pairs) {
            const auto* text = value.as_string();
            if (text == nullptr || text->get().find_first_of("\r\n") != std::string::npos || header.str().find_first_of("\r\n: ") != std::string_view::npos) {
                return at(file, value, "the header {} must be a text of one line", header.str());
            }
            provider.headers.emplace_back(header.str(), text->get());
        }
    }
    if (const toml::node* models = table->get("models")) {
        const auto* all = models->as_table();
        if (all == nullptr) return at(file, *models, "models must be tables, like [provider.{}.models.\"NAME\"]", name);
        for (const auto& [model, value] : *all) {
            auto read = read_model(value, name, std::string(model.str()), file);
            if (!read) return Failure(read.error());
            provider.models.push_back(std::move(*read));
        }
    }
    if (auto good = check_provider(provider, node, file); !good) return Failure(good.error());
    return provider;
}

}  // namespace

std::span<const KnownProvider> known_providers() {
    return known;
}

const KnownProvider* find_known(std::string_view name) {
    const auto found = std::ranges::find(known, name, &KnownProvider::name);
    return found == known.end() ? nullptr : &*found;
}

Result<std::vector<ProviderConfig>> read_providers(const toml::table& table, const std::string& file) {
    std::vector<ProviderConfig> providers;
    for (const auto& [name, node] : table) {
        auto provider = read_provider(node, std::string(name.str()), file);
        if (!provider) return Failure(provider.error());
        providers.push_back(std::move(*provider));
    }
    return providers;
}

std::vector<std::string> provider_keys() {
    std::vector<std::string> all(keys.begin(), keys.end());
    all.insert(all.end(), model_keys.begin(), model_keys.end());
    return all;
}

}  // namespace torpor::llm
