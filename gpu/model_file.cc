#include "gpu/model_file.hh"

#include "base/json.hh"
#include "base/text.hh"
#include "base/toml.hh"
#include "gpu/engine.hh"
#include "gpu/limits.hh"

#include <algorithm>
#include <array>
#include <cmath>
#include <sstream>

namespace torpor::gpu {

namespace {

const std::vector<std::string> known_keys{"engine", "path",   "args",     "env",   "command", "ready",    "wires", "aliases",
                                          "idle",   "pinned", "snapshot", "memory", "sleep", "gpus", "defaults", "price", "adapter"};
const std::vector<std::string> adapter_keys{"path", "scale"};
constexpr std::array<std::string_view, 4> keys_without_effect{"sleep", "gpus", "defaults", "price"};

// Reads the values of one table, keeping the first error with its place.
class Reader {
  public:
    Reader(const toml::table& table, const std::string& file) : table_(table), file_(file) {}

    void text(std::string_view key, std::string& out) {
        if (const toml::node* node = table_.get(key)) {
            if (!node->is_string()) return complain(*node, fmt::format("{} must be a text in quotes", key));
            out = node->as_string()->get();
        }
    }
    void truth(std::string_view key, bool& out) {
        if (const toml::node* node = table_.get(key)) {
            if (!node->is_boolean()) return complain(*node, fmt::format("{} must be true or false", key));
            out = node->as_boolean()->get();
        }
    }
    void texts(std::string_view key, std::vector<std::string>& out) {
        const toml::node* node = table_.get(key);
        if (node == nullptr) return;
        const toml::array* array = node->as_array();
        if (array == nullptr) return complain(*node, fmt::format("{} must be a list of texts", key));
        for (const toml::node& element : *array) {
            if (!element.is_string()) return complain(element, fmt::format("{} must hold texts in quotes only", key));
            out.push_back(element.as_string()->get());
        }
    }
    void number(std::string_view key, double& out) {
        if (const toml::node* node = table_.get(key)) {
            if (!node->is_number()) return complain(*node, fmt::format("{} must be a number", key));
            out = node->is_integer() ? static_cast<double>(node->as_integer()->get()) : node->as_floating_point()->get();
        }
    }
    void complain(const toml::node& node, const std::string& what) {
        if (error_.empty()) error_ = fmt::format("{}:{}: {}", file_, node.source().begin.line, what);
    }
    void take_error(const Reader& other) {
        if (error_.empty()) error_ = other.error_;
    }
    const std::string& error() const { return error_; }

  private:
    const toml::table& table_;
    const std::string& file_;
    std::string error_;
};

void read_idle(Reader& reader, const toml::table& table, Model& model) {
    const toml::node* node = table.get("idle");
    if (node == nullptr) return;
    if (!node->is_string()) return reader.complain(*node, "idle must be a duration like \"10m\", or \"never\"");
    const std::string& text = node->as_string()->get();
    if (text == "never") {
        model.idle.reset();
        return;
    }
    auto idle = parse_duration(text);
    if (!idle) return reader.complain(*node, idle.error().message);
    model.idle = *idle;
}

void read_env(Reader& reader, const toml::table& table, Model& model) {
    const toml::node* node = table.get("env");
    if (node == nullptr) return;
    const toml::table* env = node->as_table();
    if (env == nullptr) return reader.complain(*node, "env must be a table like { NAME = \"value\" }");
    for (const auto& [name, value] : *env) {
        if (!value.is_string()) return reader.complain(value, fmt::format("env.{} must be a text", name.str()));
        model.env[std::string(name.str())] = value.as_string()->get();
    }
}

void read_snapshot(Reader& reader, const toml::table& table, Model& model) {
    std::string snapshot = "ready";
    reader.text("snapshot", snapshot);
    if (snapshot != "ready" && snapshot != "off") {
        reader.complain(*table.get("snapshot"), "snapshot must be \"ready\" or \"off\"");
    }
    model.snapshot = snapshot == "ready";
}

void read_memory(Reader& reader, const toml::table& table, Model& model) {
    const toml::node* node = table.get("memory");
    if (node == nullptr) return;
    std::string text;
    reader.text("memory", text);
    auto bytes = parse_bytes(text);
    if (!bytes || *bytes == 0) return reader.complain(*node, "memory must be a size like \"6GiB\"");
    model.memory = *bytes;
}

void read_adapters(Reader& reader, const toml::table& table, const std::string& file, Model& model) {
    const toml::node* node = table.get("adapter");
    if (node == nullptr) return;
    const toml::table* adapters = node->as_table();
    if (adapters == nullptr) return reader.complain(*node, "adapter must be a table for each one, like [adapter.NAME]");
    for (const auto& [name, value] : *adapters) {
        const toml::table* keys = value.as_table();
        if (keys == nullptr) return reader.complain(value, fmt::format("adapter.{0} must be a table: [adapter.{0}]", name.str()));
        for (const auto& [key, of_key] : *keys) {
            const std::string found(key.str());
            if (std::ranges::find(adapter_keys, found) != adapter_keys.end()) continue;
            reader.complain(of_key, fmt::format("'{}' is not a key of an adapter{}", found, did_you_mean(found, adapter_keys)));
        }
        Adapter adapter;
        adapter.name = name.str();
        Reader of_adapter(*keys, file);
        of_adapter.text("path", adapter.path);
        of_adapter.number("scale", adapter.scale);
        if (adapter.scale == 0) adapter.scale = 0;  // not -0, which reads back as another
        reader.take_error(of_adapter);
        model.adapters.push_back(std::move(adapter));
    }
}

// A program without a slash in its name is looked for on PATH, so it is no path.
void make_absolute(Model& model, const std::filesystem::path& folder) {
    const auto take = [&folder](std::string& path) {
        if (!path.empty() && path[0] != '/') path = (folder / path).lexically_normal();
    };
    take(model.path);
    for (Adapter& adapter : model.adapters) take(adapter.path);
    if (!model.command.empty() && model.command[0].find('/') != std::string::npos) take(model.command[0]);
}

// Where the key or value stands that this message begins with: "args …", "'x' …", "adapter.x: …". 0: nowhere.
int line_about(const toml::table& table, std::string_view message) {
    const size_t start = message.starts_with('\'') ? 1 : 0;
    const std::string_view word = message.substr(start, message.find_first_of(start == 1 ? "'" : " :", start) - start);
    int line = 0;
    const auto look = [&](std::string_view key, const toml::node& node) {
        const auto* text = node.as_string();
        const bool is_meant = (start == 0 && key == word) || (text != nullptr && !word.empty() && text->get().starts_with(word));
        if (line == 0 && is_meant) line = static_cast<int>(node.source().begin.line);
    };
    for (const auto& [key, node] : table) {
        look(key.str(), node);
        if (const toml::array* list = node.as_array()) {
            for (const toml::node& element : *list) look("", element);
        }
        if (const toml::table* inner = node.as_table()) {
            for (const auto& [name, value] : *inner) look(fmt::format("{}.{}", key.str(), name.str()), value);
        }
    }
    return line;
}

}  // namespace

const Adapter* find_adapter(const Model& model, std::string_view name) {
    const auto found = std::ranges::find(model.adapters, name, &Adapter::name);
    return found == model.adapters.end() ? nullptr : &*found;
}

Result<Model> parse_model(std::string_view name, std::string_view text, const std::string& file,
                          std::vector<std::string>* notes, const std::filesystem::path& folder) {
    if (text.size() > model_file_bytes_max) {
        return fail(Kind::too_large, "{} is larger than {} bytes", file, model_file_bytes_max);
    }
    const auto parsed = parse_toml(text, file);
    if (!parsed) return Failure(parsed.error());
    const toml::table& table = *parsed;
    Reader reader(table, file);
    for (const auto& [key, node] : table) {
        const std::string found(key.str());
        if (std::ranges::find(known_keys, found) == known_keys.end()) {
            reader.complain(node, fmt::format("'{}' is not a key of a model{}", found, did_you_mean(found, known_keys)));
        } else if (notes != nullptr && std::ranges::find(keys_without_effect, found) != keys_without_effect.end()) {
            notes->push_back(fmt::format("{}:{}: {} has no effect in this version", file, node.source().begin.line, found));
        }
    }
    Model model;
    model.name = name;
    reader.text("engine", model.engine);
    reader.text("path", model.path);
    reader.texts("args", model.args);
    reader.texts("command", model.command);
    reader.text("ready", model.ready);
    reader.texts("wires", model.wires);
    reader.texts("aliases", model.aliases);
    reader.truth("pinned", model.pinned);
    read_idle(reader, table, model);
    read_env(reader, table, model);
    read_snapshot(reader, table, model);
    read_adapters(reader, table, file, model);
    read_memory(reader, table, model);
    if (!reader.error().empty()) return Failure(Error{Kind::invalid, reader.error(), {}});
    if (!folder.empty()) make_absolute(model, folder);
    if (auto checked = check_model(model); !checked) {
        const int line = line_about(table, checked.error().message);
        return fail(Kind::invalid, "{}{}: {}", file, line == 0 ? "" : fmt::format(":{}", line), checked.error().message);
    }
    return model;
}

const std::vector<std::string>& model_keys() {
    return known_keys;
}

namespace {

Result<void> check_adapters(const Model& model, const Engine& engine) {
    if (model.adapters.empty()) return {};
    if (engine.adapters.wires.empty()) return fail(Kind::invalid, "the engine {} serves no adapters", engine.name);
    if (model.adapters.size() > adapters_max) return fail(Kind::invalid, "more than {} adapters", adapters_max);
    for (const Adapter& adapter : model.adapters) {
        if (!is_plain_name(adapter.name)) {
            return fail(Kind::invalid, "'{}' cannot be an adapter's name; use letters, digits and . _ : - (at most 64)", adapter.name);
        }
        if (adapter.path.empty()) return fail(Kind::invalid, "adapter.{}: path is missing", adapter.name);
        if (adapter.path[0] != '/') {
            return fail(Kind::invalid, "adapter.{}: path must be absolute, but is '{}'", adapter.name, adapter.path);
        }
        if (!std::isfinite(adapter.scale) || std::abs(adapter.scale) > adapter_scale_max) {
            return fail(Kind::invalid, "adapter.{}: scale must be from -{} to {}", adapter.name, adapter_scale_max, adapter_scale_max);
        }
    }
    return {};
}

}  // namespace

Result<void> check_model(const Model& model) {
    if (!is_plain_name(model.name)) {
        return fail(Kind::invalid, "'{}' cannot be a model's name; use letters, digits and . _ : - (at most 64)", model.name);
    }
    if (model.engine.empty()) return fail(Kind::invalid, "engine is missing; known are {}", fmt::join(engine_names(), ", "));
    const Engine* engine = find_engine(model.engine);
    if (engine == nullptr) {
        return fail(Kind::invalid, "'{}' is not an engine; known are {}{}", model.engine, fmt::join(engine_names(), ", "),
                    did_you_mean(model.engine, engine_names()));
    }
    for (const std::string& wire : model.wires) {
        if (!parse_wire(wire)) {
            return fail(Kind::invalid, "'{}' is not a wire; known are {}", wire, fmt::join(wire_names(), ", "));
        }
    }
    if (model.aliases.size() > aliases_max) return fail(Kind::invalid, "more than {} aliases", aliases_max);
    for (const std::string& alias : model.aliases) {
        if (!is_plain_name(alias)) return fail(Kind::invalid, "'{}' cannot be an alias", alias);
    }
    if (model.args.size() + model.command.size() > arguments_max) {
        return fail(Kind::invalid, "more than {} arguments", arguments_max);
    }
    for (const auto* list : {&model.args, &model.command}) {
        for (const std::string& argument : *list) {
            if (argument.size() > argument_bytes_max || argument.find('\0') != std::string::npos) {
                return fail(Kind::invalid, "an argument is longer than {} bytes or holds a zero byte", argument_bytes_max);
            }
        }
    }
    for (const auto& [name, value] : model.env) {
        if (name.empty() || name.find('=') != std::string::npos || (name + value).find('\0') != std::string::npos) {
            return fail(Kind::invalid, "'{}' cannot be the name of an environment variable", name);
        }
    }
    if (!model.path.empty() && model.path[0] != '/') {
        return fail(Kind::invalid, "path must be absolute, but is '{}'", model.path);
    }
    if (!model.ready.empty() && model.ready[0] != '/') return fail(Kind::invalid, "ready must begin with /");
    if (auto checked = check_adapters(model, *engine); !checked) return checked;
    return engine->check(model);
}

namespace {

// A TOML basic string has JSON's escapes.
std::string toml_text(std::string_view text) {
    std::string out;
    append_json_string(out, text);
    return out;
}

void write_list(std::string& out, std::string_view key, const std::vector<std::string>& list) {
    if (list.empty()) return;
    std::vector<std::string> parts;
    for (const std::string& text : list) parts.push_back(toml_text(text));
    out += fmt::format("{} = [{}]\n", key, fmt::join(parts, ", "));
}

}  // namespace

std::string write_model(const Model& model) {
    std::string out = fmt::format("engine = {}\n", toml_text(model.engine));
    if (!model.path.empty()) out += fmt::format("path = {}\n", toml_text(model.path));
    write_list(out, "args", model.args);
    write_list(out, "command", model.command);
    if (!model.ready.empty()) out += fmt::format("ready = {}\n", toml_text(model.ready));
    write_list(out, "wires", model.wires);
    write_list(out, "aliases", model.aliases);
    out += model.idle ? fmt::format("idle = \"{}ms\"\n", model.idle->count()) : "idle = \"never\"\n";
    if (model.pinned) out += "pinned = true\n";
    if (!model.snapshot) out += "snapshot = \"off\"\n";
    if (model.memory > 0) out += fmt::format("memory = \"{}\"\n", model.memory);
    if (!model.env.empty()) {
        out += "\n[env]\n";
        for (const auto& [name, value] : model.env) out += fmt::format("{} = {}\n", toml_text(name), toml_text(value));
    }
    for (const Adapter& adapter : model.adapters) {
        out += fmt::format("\n[adapter.{}]\npath = {}\nscale = {}\n", toml_text(adapter.name), toml_text(adapter.path), adapter.scale);
    }
    return out;
}

}  // namespace torpor::gpu
