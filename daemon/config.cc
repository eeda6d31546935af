#include "daemon/config.hh"

#include "base/fd.hh"
#include "base/text.hh"
#include "base/toml.hh"
#include "gpu/limits.hh"

#include <algorithm>
#include <charconv>
#include <map>
#include <optional>

namespace torpor {

namespace {

namespace fs = std::filesystem;

constexpr size_t config_bytes_max = 256 * 1024;

// One key of config.toml: its table, its name, and what takes its text.
struct Key {
    std::string_view table, name;
    Result<void> (*take)(Config&, const std::string&);
};

Result<void> take_tcp(Config& config, const std::string& text) {
    if (text == "off") {
        config.tcp_host.clear();
        return {};
    }
    const size_t colon = text.rfind(':');
    int port = -1;
    if (colon != std::string::npos) std::from_chars(text.data() + colon + 1, text.data() + text.size(), port);
    const std::string host = text.substr(0, colon);
    if (port < 0 || port > 65535 || (host != "127.0.0.1" && host != "localhost")) {
        return fail(Kind::invalid, "'{}' is not a loopback address like 127.0.0.1:7117, nor \"off\"", text);
    }
    config.tcp_host = "127.0.0.1";
    config.tcp_port = port;
    return {};
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

Result<void> take_llama_server(Config& config, const std::string& text) {
    config.programs["llama-server"] = text;
    return {};
}

// A key of [limits] whose value goes to this place.
#define LIMIT(name, take, place) \
    Key{"limits", name, [](Config& config, const std::string& text) { return take(config.place, text); }}

constexpr std::array keys{
    Key{"http", "tcp", take_tcp},
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
    LIMIT("first_byte", take_time, gateway_limits.first_byte),
    LIMIT("stall", take_time, gateway_limits.stall),
    LIMIT("stream_time", take_time, gateway_limits.stream_time),
    Key{"log", "level", take_level},
    Key{"engines", "llama-server", take_llama_server},
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

Result<void> take_table(Config& config, std::string_view table, const toml::table& values, const std::string& file) {
    for (const auto& [name, value] : values) {
        const auto key = std::ranges::find_if(keys, [&table, found = name.str()](const Key& k) { return k.table == table && k.name == found; });
        if (key == keys.end()) {
            return at(file, value, "'{}' is not a key of [{}]{}", name.str(), table,
                      did_you_mean(name.str(), names_in(table)));
        }
        const auto text = text_of(value);
        if (!text) return at(file, value, "{} must be a text in quotes or a whole number", name.str());
        if (auto taken = key->take(config, *text); !taken) {
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
        const auto tables = names_in("");
        if (!node.is_table() || std::ranges::find(tables, std::string(name.str())) == tables.end()) {
            return at(file, node, "[{}] is not a table of config.toml{}", name.str(), did_you_mean(name.str(), tables));
        }
        if (auto taken = take_table(config, name.str(), *node.as_table(), file); !taken) return Failure(taken.error());
    }
    return config;
}

std::vector<std::string> config_keys() {
    std::vector<std::string> names;
    for (const Key& key : keys) names.push_back(fmt::format("{}.{}", key.table, key.name));
    return names;
}

namespace {

// By model: what is wrong with its aliases. Names come before aliases, and the first of two with the same alias has it.
std::map<std::string, std::string> alias_mistakes(const std::vector<gpu::Model>& models) {
    std::map<std::string, std::string> owners, mistakes;
    for (const gpu::Model& model : models) owners[model.name] = model.name;
    for (const gpu::Model& model : models) {
        for (const std::string& alias : model.aliases) {
            const auto [owner, is_new] = owners.emplace(alias, model.name);
            if (!is_new) mistakes[model.name] = fmt::format("the alias {} of {} is taken by {}", alias, model.name, owner->second);
        }
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
    for (const auto& [name, mistake] : alias_mistakes(config.models)) {
        config.mistakes.push_back(fmt::format("{}: {}", (folders.models() / (name + ".toml")).string(), mistake));
        std::erase_if(config.models, [&, wrong = name](const gpu::Model& model) { return model.name == wrong; });
    }
}

}  // namespace

Result<void> check_names(const std::vector<gpu::Model>& models) {
    const auto mistakes = alias_mistakes(models);
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
