#include "daemon/llm/providers.hh"

#include "base/fd.hh"
#include "base/text.hh"
#include "daemon/llm/any_model.hh"
#include "daemon/llm/limits.hh"

#include <sys/stat.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>

namespace torpor::llm {

namespace {

// Windows of models that say them nowhere. Prices are the configuration's: they change too often to be right here.
struct KnownModel {
    std::string_view prefix;
    uint64_t context_tokens, output_tokens_max;
};
constexpr std::array known_models{
    KnownModel{"claude-3", 200'000, 8'192},    KnownModel{"claude-", 200'000, 64'000},   KnownModel{"gpt-5", 400'000, 128'000},
    KnownModel{"gpt-4.1", 1'047'576, 32'768}, KnownModel{"gpt-4o", 128'000, 16'384},    KnownModel{"o3", 200'000, 100'000},
    KnownModel{"o4", 200'000, 100'000},       KnownModel{"grok-4", 256'000, 0},
};

void add_known(ModelFacts& facts) {
    for (const KnownModel& known : known_models) {
        if (!facts.model.starts_with(known.prefix)) continue;
        if (facts.context_tokens == 0) facts.context_tokens = known.context_tokens;
        if (facts.output_tokens_max == 0) facts.output_tokens_max = known.output_tokens_max;
        return;
    }
}

// The number behind one of these among an engine's arguments; 0: not there.
uint64_t number_among(const std::vector<std::string>& args, std::initializer_list<std::string_view> names) {
    for (size_t i = 0; i + 1 < args.size(); ++i) {
        if (std::ranges::find(names, args[i]) == names.end()) continue;
        uint64_t number = 0;
        std::from_chars(args[i + 1].data(), args[i + 1].data() + args[i + 1].size(), number);
        return number;
    }
    return 0;
}

bool is_among(const std::vector<std::string>& args, std::string_view name) {
    return std::ranges::find(args, name) != args.end();
}

// Only what nobody else can read is a secret.
Result<std::string> read_key(const std::filesystem::path& file) {
    struct stat info{};
    if (::stat(file.c_str(), &info) != 0) return fail_errno(Kind::not_found, fmt::format("{} cannot be read", file.string()));
    if ((info.st_mode & 077) != 0) return fail(Kind::refused, "others may read {}; say chmod 600 {}", file.string(), file.string());
    auto text = read_file(file, key_bytes_max);
    if (!text) return text;
    const size_t begin = text->find_first_not_of(" \t\r\n");
    if (begin == std::string::npos) return fail(Kind::not_found, "{} is empty", file.string());
    std::string key = text->substr(begin, text->find_last_not_of(" \t\r\n") + 1 - begin);
    if (key.find_first_of("\r\n") != std::string::npos) return fail(Kind::invalid, "{} has more than one line", file.string());
    return key;
}

}  // namespace

std::optional<double> cost_of(const ModelFacts& facts, const Usage& usage) {
    if (!facts.price) return {};
    constexpr double million = 1e6;
    const uint64_t cached = std::min(usage.input_tokens, usage.cache_read_tokens + usage.cache_write_tokens);
    return (static_cast<double>(usage.input_tokens - cached) * facts.price->input + static_cast<double>(usage.output_tokens) * facts.price->output +
            static_cast<double>(usage.cache_read_tokens) * facts.price->cache_read + static_cast<double>(usage.cache_write_tokens) * facts.price->cache_write) /
           million;
}

std::filesystem::path key_file_of(const Folders& folders, std::string_view provider) {
    return folders.config / "provider-keys" / provider;
}

void AllProviders::set(std::vector<ProviderConfig> providers, std::string default_model) {
    std::lock_guard lock(mutex_);
    configured_ = std::move(providers);
    default_model_ = std::move(default_model);
}

// Those of the configuration first: they may say another thing of a known name.
std::vector<AllProviders::Entry> AllProviders::entries() const {
    std::vector<Entry> all;
    {
        std::lock_guard lock(mutex_);
        for (const ProviderConfig& config : configured_) all.push_back({config, config.wire, config.base_url, config.key_env});
    }
    for (const KnownProvider& known : known_providers()) {
        const auto found = std::ranges::find_if(all, [&](const Entry& entry) { return entry.config.name == known.name; });
        Entry& entry = found != all.end() ? *found : all.emplace_back();
        entry.config.name = known.name;
        if (entry.wire.empty()) entry.wire = known.wire;
        if (entry.base_url.empty()) entry.base_url = known.base_url;
        if (entry.key_env.empty() && entry.config.key_file.empty()) entry.key_env = known.key_env;
    }
    return all;
}

// Empty where it needs none.
Result<std::string> AllProviders::key_of(const Entry& entry) const {
    const std::string& name = entry.config.name;
    if (!entry.config.key_file.empty()) return read_key(entry.config.key_file);
    if (!entry.key_env.empty()) {
        if (const char* key = std::getenv(entry.key_env.c_str()); key != nullptr && *key != '\0') return std::string(key);
    }
    const auto file = key_file_of(folders_, name);
    std::error_code code;
    if (std::filesystem::exists(file, code)) return read_key(file);
    if (entry.key_env.empty()) return std::string();
    return fail(Kind::unauthorized, "there is no key for {}: torpor login {} takes one, or start torpord with {} in its environment", name, name, entry.key_env);
}

Result<Chosen> AllProviders::choose_from(const Entry& entry, const std::string& model) const {
    auto key = key_of(entry);
    if (!key) return Failure(key.error());
    ModelFacts facts;
    facts.provider = entry.config.name;
    facts.model = model;
    for (const ModelConfig& one : entry.config.models) {
        if (one.facts.model == model || std::ranges::find(one.aliases, model) != one.aliases.end()) facts = one.facts;
    }
    add_known(facts);
    std::shared_ptr<Provider> provider =
        std::make_shared<HttpProvider>(client_, *find_wire(entry.wire), Endpoint{entry.config.name, entry.base_url, {}, *key, entry.config.headers}, facts);
    if (!facts.takes_tools) provider = std::make_shared<AnyModel>(std::move(provider));
    return Chosen{std::move(provider), std::move(facts)};
}

GgufFacts AllProviders::gguf_of(const std::string& path) const {
    std::error_code code;
    const auto time = std::filesystem::last_write_time(path, code).time_since_epoch().count();
    {
        std::lock_guard lock(mutex_);
        if (const auto found = gguf_.find(path); found != gguf_.end() && found->second.first == time) return found->second.second;
    }
    const GgufFacts facts = read_gguf(path).value_or(GgufFacts());
    std::lock_guard lock(mutex_);
    gguf_[path] = {time, facts};
    return facts;
}

// Asked through torpord's own door, so that it is woken, waits its turn and is counted like for anybody.
Result<Chosen> AllProviders::choose_local(const std::string& name) const {
    auto model = pool_.find(name);
    if (!model) return Failure(model.error());
    ModelFacts facts;
    facts.provider = "local";
    facts.model = name;
    if (model->engine == "llama-server") {
        const GgufFacts said = gguf_of(model->path);
        // llama-server gives a model tools if its template has a place for them (common/chat.cpp).
        facts.takes_tools = said.chat_template.find("tools") != std::string::npos && !is_among(model->args, "--no-jinja");
        const uint64_t all = number_among(model->args, {"-c", "--ctx-size"});
        facts.context_tokens = (all > 0 ? all : said.context_tokens) / std::max<uint64_t>(1, all > 0 ? number_among(model->args, {"-np", "--parallel"}) : 1);
        facts.takes_images = is_among(model->args, "--mmproj");
    } else if (model->engine == "vllm") {
        facts.takes_tools = is_among(model->args, "--enable-auto-tool-choice");
        facts.context_tokens = number_among(model->args, {"--max-model-len"});
    }
    std::shared_ptr<Provider> provider = std::make_shared<HttpProvider>(
        client_, openai_chat, Endpoint{"local", "http://localhost/v1", folders_.socket().string(), {}, {}}, facts);
    if (!facts.takes_tools) provider = std::make_shared<AnyModel>(std::move(provider));
    return Chosen{std::move(provider), std::move(facts)};
}

Result<Chosen> AllProviders::choose(std::string_view wanted) const {
    std::string model(wanted);
    if (model.empty()) {
        {
            std::lock_guard lock(mutex_);
            model = default_model_;
        }
        const auto local = pool_.models();
        if (model.empty() && local.size() == 1) model = local.front().name;
        if (model.empty()) {
            return fail(Kind::invalid, "say which model: torpor models lists them; model = \"...\" under [agent] in config.toml names one for all sessions");
        }
    }
    const auto all = entries();
    for (const Entry& entry : all) {
        for (const ModelConfig& one : entry.config.models) {
            if (std::ranges::find(one.aliases, model) != one.aliases.end()) return choose_from(entry, one.facts.model);
        }
    }
    if (const size_t slash = model.find('/'); slash != std::string::npos) {
        const std::string provider = model.substr(0, slash), rest = model.substr(slash + 1);
        if (provider == "local" && !rest.empty()) return choose_local(rest);
        for (const Entry& entry : all) {
            if (entry.config.name == provider && !rest.empty()) return choose_from(entry, rest);
        }
    }
    if (pool_.find(model)) return choose_local(model);
    for (const Entry& entry : all) {
        for (const ModelConfig& one : entry.config.models) {
            if (one.facts.model == model) return choose_from(entry, model);
        }
    }
    for (const Entry& entry : all) {
        const KnownProvider* known = find_known(entry.config.name);
        if (known == nullptr) continue;
        for (const std::string_view prefix : known->prefixes) {
            if (!prefix.empty() && model.starts_with(prefix)) return choose_from(entry, model);
        }
    }
    return not_found(model);
}

Failure AllProviders::not_found(std::string_view model) const {
    std::vector<std::string> names;
    for (const gpu::Model& local : pool_.models()) names.push_back(local.name);
    for (const Entry& entry : entries()) {
        for (const ModelConfig& one : entry.config.models) {
            names.push_back(one.facts.model);
            names.insert(names.end(), one.aliases.begin(), one.aliases.end());
        }
    }
    return fail(Kind::not_found, "there is no model {}{}; PROVIDER/MODEL names one of a provider, like anthropic/claude-sonnet-4-5", model.substr(0, 128),
                did_you_mean(model, names));
}

std::vector<AllProviders::Listed> AllProviders::list() const {
    std::vector<Listed> all;
    Listed local{"local", std::string(openai_chat.name), folders_.socket().string(), true, {}, {}};
    for (const gpu::Model& model : pool_.models()) {
        local.models.push_back(model.name);
        for (const gpu::Adapter& adapter : model.adapters) local.models.push_back(adapter.name);
    }
    all.push_back(std::move(local));
    for (const Entry& entry : entries()) {
        Listed listed{entry.config.name, entry.wire, entry.base_url, false, {}, {}};
        listed.has_key = key_of(entry).has_value();
        listed.key_source = !entry.config.key_file.empty() ? entry.config.key_file : entry.key_env;
        for (const ModelConfig& one : entry.config.models) listed.models.push_back(one.facts.model);
        all.push_back(std::move(listed));
    }
    return all;
}

}  // namespace torpor::llm
