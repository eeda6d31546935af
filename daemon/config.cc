#include "daemon/config.hh"

#include "base/fd.hh"
#include "base/text.hh"
#include "gpu/limits.hh"

#define TOML_EXCEPTIONS 0
#define TOML_HEADER_ONLY 1
#include <toml++/toml.h>

#include <algorithm>
#include <charconv>
#include <map>

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

constexpr std::array keys{
    Key{"http", "tcp", take_tcp},
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

Result<void> take_table(Config& config, std::string_view table, const toml::table& values, const std::string& file) {
    for (const auto& [name, value] : values) {
        const auto key = std::ranges::find_if(keys, [&table, found = name.str()](const Key& k) { return k.table == table && k.name == found; });
        if (key == keys.end()) {
            return at(file, value, "'{}' is not a key of [{}]{}", name.str(), table,
                      did_you_mean(name.str(), names_in(table)));
        }
        if (!value.is_string()) return at(file, value, "{} must be a text in quotes", name.str());
        if (auto taken = key->take(config, value.as_string()->get()); !taken) {
            return at(file, value, "{}: {}", name.str(), taken.error().message);
        }
    }
    return {};
}

}  // namespace

Result<Config> parse_config(std::string_view text, const std::string& file) {
    const toml::parse_result parsed = toml::parse(text, file);
    if (!parsed) {
        const toml::parse_error& error = parsed.error();
        return fail(Kind::invalid, "{}:{}: {}", file, error.source().begin.line, error.description());
    }
    Config config;
    for (const auto& [name, node] : parsed.table()) {
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

Result<void> check_names(const std::vector<gpu::Model>& models) {
    std::map<std::string, std::string> owners;
    for (const gpu::Model& model : models) owners[model.name] = model.name;
    for (const gpu::Model& model : models) {
        for (const std::string& alias : model.aliases) {
            const auto [owner, is_new] = owners.emplace(alias, model.name);
            if (!is_new) {
                return fail(Kind::conflict, "the alias {} of {} is taken by {}", alias, model.name, owner->second);
            }
        }
    }
    return {};
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
    for (const fs::path& file : files) {
        auto model_text = read_file(file, gpu::model_file_bytes_max);
        if (!model_text) return Failure(model_text.error());
        auto model = gpu::parse_model(file.stem().string(), *model_text, file, &config->notes);
        if (!model) return Failure(model.error());
        config->models.push_back(std::move(*model));
    }
    if (auto checked = check_names(config->models); !checked) return Failure(checked.error());
    return config;
}

}  // namespace torpor
