#include "daemon/config.hh"

#include "base/fd.hh"
#include "base/text.hh"
#include "base/toml.hh"
#include "gpu/limits.hh"

#include <algorithm>
#include <charconv>
#include <map>
#include <optional>
#include <variant>

namespace torpor {

namespace {

namespace fs = std::filesystem;

constexpr size_t config_bytes_max = 256 * 1024;

using Texts = std::vector<std::string>;
using TakeText = Result<void> (*)(Config&, const std::string&);  // whole numbers come as their text
using TakeTruth = void (*)(Config&, bool);
using TakeTexts = Result<void> (*)(Config&, const Texts&);

// One key of config.toml: its table, its name, and what takes its value; that says which kind it must be of.
struct Key {
    std::string_view table, name;
    std::variant<TakeText, TakeTruth, TakeTexts> take;
};

Result<void> take_tcp(Config& config, const std::string& text) {
    config.http.tcp.reset();
    if (text == "off") return {};
    auto address = parse_tcp_address(text);
    if (!address) return fail(Kind::invalid, "{}, nor \"off\"", address.error().message);
    config.http.tcp = std::move(*address);
    return {};
}

template <std::string HttpConfig::* place>
Result<void> take_path(Config& config, const std::string& text) {
    if (text.empty()) return fail(Kind::invalid, "this must be the path of a PEM file; leave the key out for plain HTTP");
    config.http.*place = text;
    return {};
}

Result<void> take_hosts(Config& config, const Texts& texts) {
    for (const std::string& text : texts) {
        std::string name = number_of(text);
        if (name.empty()) {
            name = to_lower(text);
            const bool is_name = name.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-._") == std::string::npos;
            if (name.empty() || !is_name) {
                return fail(Kind::invalid, "'{}' is not a machine's name or number alone, like box.example.org", text);
            }
        }
        config.http.hosts.push_back(std::move(name));
    }
    return {};
}

void take_allow_plain_http(Config& config, bool is_so) {
    config.http.allow_plain_http = is_so;
}

// What the keys of [http] must be together.
Result<void> check_http(const HttpConfig& http) {
    if (http.certificate.empty() != http.key.empty()) {
        return fail(Kind::invalid, "certificate and key belong together, but there is no {}", http.key.empty() ? "key" : "certificate");
    }
    if (!http.tcp || http.tcp->is_loopback() || !http.certificate.empty() || http.allow_plain_http) return {};
    return fail(Kind::invalid,
                "other machines can reach {}, and without a certificate keys and prompts would travel readable by all in "
                "between: name a certificate and its key, or say allow_plain_http = true if that is what you want",
                http.tcp->text());
}

constexpr size_t count_max = 1'000'000;

Result<void> take_count(size_t& out, const std::string& text) {
    size_t number = 0;
    const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (code != std::errc{} || end != text.data() + text.size() || number == 0 || number > count_max) {
        return fail(Kind::invalid, "'{}' is not a number from 1 to {}", text, count_max);
    }
    out = number;
    return {};
}

Result<void> take_bytes(size_t& out, const std::string& text) {
    auto bytes = parse_bytes(text);
    if (!bytes) return Failure(bytes.error());
    constexpr uint64_t least = 64 * 1024;
    if (*bytes < least) return fail(Kind::invalid, "less than {} bytes would refuse ordinary requests", least);
    out = *bytes;
    return {};
}

Result<void> take_time(std::chrono::milliseconds& out, const std::string& text) {
    auto time = parse_duration(text);
    if (!time) return Failure(time.error());
    if (time->count() == 0) return fail(Kind::invalid, "0 would refuse everything");
    out = *time;
    return {};
}

Result<void> take_memory(Config& config, const std::string& text) {
    config.memory.reset();
    if (text == "auto") return {};
    auto bytes = parse_bytes(text);
    if (!bytes) return fail(Kind::invalid, "{}, nor \"auto\"", bytes.error().message);
    if (*bytes == 0) return fail(Kind::invalid, "0 would serve no model");
    config.memory = *bytes;
    return {};
}

Result<void> take_level(Config& config, const std::string& text) {
    static const std::map<std::string, log::Level> levels{{"debug", log::Level::debug},
                                                          {"info", log::Level::info},
                                                          {"warning", log::Level::warning},
                                                          {"error", log::Level::error}};
    const auto found = levels.find(text);
    if (found == levels.end()) return fail(Kind::invalid, "'{}' is not a level; there are debug, info, warning, error", text);
    config.log_level = found->second;
    return {};
}

Result<void> take_prompt_state(Config& config, const std::string& text) {
    config.prompt_state_bytes = 0;
    if (text == "off") return {};
    auto bytes = parse_bytes(text);
    if (!bytes) return fail(Kind::invalid, "{}, nor \"off\"", bytes.error().message);
    config.prompt_state_bytes = *bytes;
    return {};
}

Result<void> take_agent_model(Config& config, const std::string& text) {
    config.agent_model = text;
    return {};
}

Result<void> take_disk(Config& config, const std::string& text) {
    config.disk_budget.reset();
    if (text == "auto") return {};
    auto bytes = parse_bytes(text);
    if (!bytes) return fail(Kind::invalid, "{}, nor \"auto\"", bytes.error().message);
    if (*bytes == 0) return fail(Kind::invalid, "0 would keep no snapshot; say snapshot = \"off\" in the models' files for that");
    config.disk_budget = *bytes;
    return {};
}

// A key of [limits] whose value goes to this place.
#define LIMIT(name, take, place) \
    Key{"limits", name, TakeText([](Config& config, const std::string& text) { return take(config.place, text); })}

// The program of this engine.
#define PROGRAM(name) \
    Key{"engines", name, TakeText([](Config& config, const std::string& text) { \
            config.programs[name] = text; \
            return Result<void>(); \
        })}

constexpr std::array keys{
    Key{"http", "tcp", take_tcp},
    Key{"http", "certificate", take_path<&HttpConfig::certificate>},
    Key{"http", "key", take_path<&HttpConfig::key>},
    Key{"http", "hosts", take_hosts},
    Key{"http", "allow_plain_http", take_allow_plain_http},
    LIMIT("connections", take_count, http_limits.connections),
    LIMIT("requests_per_model", take_count, requests_per_model),
    LIMIT("requests_per_key", take_count, gateway_limits.requests_per_key),
    LIMIT("queue", take_count, queue),
    LIMIT("body_bytes", take_bytes, http_limits.body_bytes),
    LIMIT("bodies_in_flight_bytes", take_bytes, http_limits.bodies_in_flight_bytes),
    LIMIT("head_time", take_time, http_limits.head_time),
    LIMIT("body_stall", take_time, http_limits.body_stall),
    LIMIT("body_time", take_time, http_limits.body_time),
    LIMIT("client_stall", take_time, http_limits.client_stall),
    LIMIT("idle_time", take_time, http_limits.idle_time),
    LIMIT("wait", take_time, gateway_limits.wait),
    LIMIT("send_stall", take_time, gateway_limits.send_stall),
    LIMIT("first_byte", take_time, gateway_limits.first_byte),
    LIMIT("stall", take_time, gateway_limits.stall),
    LIMIT("stream_time", take_time, gateway_limits.stream_time),
    Key{"pool", "memory", take_memory},
    Key{"pool", "disk", take_disk},
    Key{"pool", "prompt_state", take_prompt_state},
    Key{"log", "level", take_level},
    Key{"agent", "model", take_agent_model},
    PROGRAM("llama-server"),
    PROGRAM("vllm"),
    PROGRAM("sglang"),
    PROGRAM("tgi"),
};

std::vector<std::string> names_in(std::string_view table) {
    std::vector<std::string> names;
    for (const Key& key : keys) {
        const std::string name(table.empty() ? key.table : key.name);
        if ((table.empty() || key.table == table) && std::ranges::find(names, name) == names.end()) names.push_back(name);
    }
    return names;
}

template <class... Args>
Failure at(const std::string& file, const toml::node& node, fmt::format_string<Args...> format, Args&&... args) {
    return fail(Kind::invalid, "{}:{}: {}", file, node.source().begin.line, fmt::format(format, std::forward<Args>(args)...));
}

std::optional<std::string> text_of(const toml::node& value) {
    if (value.is_string()) return value.as_string()->get();
    if (value.is_integer()) return std::to_string(value.as_integer()->get());
    return {};
}

std::optional<Texts> texts_of(const toml::node& value) {
    if (!value.is_array()) return {};
    Texts texts;
    for (const toml::node& element : *value.as_array()) {
        if (!element.is_string()) return {};
        texts.push_back(element.as_string()->get());
    }
    return texts;
}

Result<void> take_value(Config& config, const Key& key, const toml::node& value) {
    if (const auto* take = std::get_if<TakeTruth>(&key.take)) {
        if (!value.is_boolean()) return fail(Kind::invalid, "must be true or false");
        (*take)(config, value.as_boolean()->get());
        return {};
    }
    if (const auto* take = std::get_if<TakeTexts>(&key.take)) {
        const auto texts = texts_of(value);
        return texts ? (*take)(config, *texts) : fail(Kind::invalid, "must be a list of texts, like [\"one\", \"two\"]");
    }
    const auto text = text_of(value);
    if (!text) return fail(Kind::invalid, "must be a text in quotes or a whole number");
    return std::get<TakeText>(key.take)(config, *text);
}

Result<void> take_table(Config& config, std::string_view table, const toml::table& values, const std::string& file) {
    for (const auto& [name, value] : values) {
        const auto key = std::ranges::find_if(keys, [&table, found = name.str()](const Key& k) { return k.table == table && k.name == found; });
        if (key == keys.end()) {
            return at(file, value, "'{}' is not a key of [{}]{}", name.str(), table,
                      did_you_mean(name.str(), names_in(table)));
        }
        if (auto taken = take_value(config, *key, value); !taken) {
            return at(file, value, "{}: {}", name.str(), taken.error().message);
        }
    }
    return {};
}

}  // namespace

Result<Config> parse_config(std::string_view text, const std::string& file) {
    const auto parsed = parse_toml(text, file);
    if (!parsed) return Failure(parsed.error());
    Config config;
    for (const auto& [name, node] : *parsed) {
        auto tables = names_in("");
        tables.emplace_back("provider");
        if (name.str() == "provider" && node.is_table()) {
            auto providers = llm::read_providers(*node.as_table(), file);
            if (!providers) return Failure(providers.error());
            config.providers = std::move(*providers);
            continue;
        }
        if (!node.is_table() || std::ranges::find(tables, std::string(name.str())) == tables.end()) {
            return at(file, node, "[{}] is not a table of config.toml{}", name.str(), did_you_mean(name.str(), tables));
        }
        if (auto taken = take_table(config, name.str(), *node.as_table(), file); !taken) return Failure(taken.error());
    }
    if (auto checked = check_http(config.http); !checked) return at(file, *parsed->get("http"), "[http]: {}", checked.error().message);
    return config;
}

std::vector<std::string> config_keys() {
    std::vector<std::string> names;
    for (const Key& key : keys) names.push_back(fmt::format("{}.{}", key.table, key.name));
    return names;
}

namespace {

// By model: what is wrong with its aliases and adapters. Models' names come first, and the first of two with the same
// other name has it.
std::map<std::string, std::string> name_mistakes(const std::vector<gpu::Model>& models) {
    std::map<std::string, std::string> owners, mistakes;
    for (const gpu::Model& model : models) owners[model.name] = model.name;
    for (const gpu::Model& model : models) {
        const auto take = [&](std::string_view what, const std::string& name) {
            const auto [owner, is_new] = owners.emplace(name, model.name);
            if (!is_new) mistakes[model.name] = fmt::format("the {} {} of {} is taken by {}", what, name, model.name, owner->second);
        };
        for (const gpu::Adapter& adapter : model.adapters) take("adapter name", adapter.name);
        for (const std::string& alias : model.aliases) take("alias", alias);
    }
    return mistakes;
}

void load_models(const Folders& folders, const std::vector<fs::path>& files, Config& config) {
    for (const fs::path& file : files) {
        auto text = read_file(file, gpu::model_file_bytes_max);
        auto model = text ? gpu::parse_model(file.stem().string(), *text, file, &config.notes) : Failure(text.error());
        if (model) {
            config.models.push_back(std::move(*model));
        } else {
            config.mistakes.push_back(model.error().text());
        }
    }
    for (const auto& [name, mistake] : name_mistakes(config.models)) {
        config.mistakes.push_back(fmt::format("{}: {}", (folders.models() / (name + ".toml")).string(), mistake));
        std::erase_if(config.models, [&, wrong = name](const gpu::Model& model) { return model.name == wrong; });
    }
}

}  // namespace

Result<void> check_names(const std::vector<gpu::Model>& models) {
    const auto mistakes = name_mistakes(models);
    if (mistakes.empty()) return {};
    return fail(Kind::conflict, "{}", mistakes.begin()->second);
}

Result<Config> load_config(const Folders& folders) {
    auto text = read_file(folders.config_file(), config_bytes_max);
    if (!text && text.error().kind != Kind::not_found) return Failure(text.error());
    auto config = parse_config(text.value_or(""), folders.config_file());
    if (!config) return config;
    std::error_code code;
    std::vector<fs::path> files;
    for (const auto& entry : fs::directory_iterator(folders.models(), code)) {
        if (entry.path().extension() == ".toml") files.push_back(entry.path());
    }
    std::ranges::sort(files);
    if (files.size() > gpu::models_max) return fail(Kind::too_large, "more than {} models", gpu::models_max);
    load_models(folders, files, *config);
    return config;
}

}  // namespace torpor
