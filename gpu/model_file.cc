#include "gpu/model_file.hh"

#include "base/json.hh"
#include "base/text.hh"
#include "base/toml.hh"
#include "gpu/engine.hh"
#include "gpu/limits.hh"

#include <algorithm>
#include <array>
#include <sstream>

namespace torpor::gpu {

namespace {

const std::vector<std::string> known_keys{"engine", "path",   "args",     "env",   "command", "ready",    "wires", "aliases",
                                          "idle",   "pinned", "snapshot", "memory", "sleep", "gpus", "defaults", "price"};
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
    void complain(const toml::node& node, const std::string& what) {
        if (error_.empty()) error_ = fmt::format("{}:{}: {}", file_, node.source().begin.line, what);
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

}  // namespace

Result<Model> parse_model(std::string_view name, std::string_view text, const std::string& file,
                          std::vector<std::string>* notes) {
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
    read_memory(reader, table, model);
    if (!reader.error().empty()) return Failure(Error{Kind::invalid, reader.error(), {}});
    if (auto checked = check_model(model); !checked) {
        return fail(Kind::invalid, "{}: {}", file, checked.error().message);
    }
    return model;
}

const std::vector<std::string>& model_keys() {
    return known_keys;
}

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
    return out;
}

}  // namespace torpor::gpu
