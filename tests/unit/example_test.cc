// What people read, held against what is: the example files of packaging/ as they are and with every key switched
// on, and docs/api.md against the table of routes.
#include "base/fd.hh"
#include "daemon/config.hh"
#include "daemon/routes.hh"
#include "gpu/model_file.hh"

#include <doctest/doctest.h>

#include <filesystem>
#include <sstream>

using namespace torpor;

namespace {

std::string example(const char* name) {
    const auto text = read_file(std::filesystem::path(TORPOR_PACKAGING) / name, 64 * 1024);
    REQUIRE(text);
    return *text;
}

// A key is commented as "#key = value", with no space; prose has one.
std::string switched_on(const std::string& text) {
    std::string all;
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);) {
        const bool is_key = line.size() > 1 && line[0] == '#' && line[1] != ' ';
        all += line.substr(is_key ? 1 : 0) + "\n";
    }
    return all;
}

bool has_key(const std::string& text, const std::string& key) {
    const std::string lines = "\n" + text;
    return lines.find("\n" + key + " = ") != std::string::npos || lines.find("\n[" + key + ".") != std::string::npos;
}

}  // namespace

TEST_CASE("config.example.toml: as it is it changes nothing, and it shows every key with its default") {
    const std::string text = example("config.example.toml");
    const Config defaults;
    for (const std::string& variant : {text, switched_on(text)}) {
        const auto config = parse_config(variant, "config.example.toml");
        REQUIRE_MESSAGE(config, config.error().text());
        CHECK(config->http.tcp == defaults.http.tcp);
        CHECK(config->http.hosts == defaults.http.hosts);
        CHECK(config->http.allow_plain_http == defaults.http.allow_plain_http);
        CHECK(config->log_level == defaults.log_level);
    }
    for (const std::string& key : config_keys()) {
        CAPTURE(key);
        CHECK(has_key(switched_on(text), key.substr(key.find('.') + 1)));
        CHECK(text.find("[" + key.substr(0, key.find('.')) + "]") != std::string::npos);
    }
}

TEST_CASE("model.example.toml: it can be used as it is, and it shows every key") {
    const std::string text = example("model.example.toml");
    std::vector<std::string> notes;
    const auto model = gpu::parse_model("example", text, "model.example.toml", &notes);
    REQUIRE_MESSAGE(model, model.error().text());
    CHECK(notes.empty());
    gpu::Model plain;
    plain.name = "example";
    plain.engine = model->engine;
    plain.path = model->path;
    CHECK(*model == plain);

    const auto whole = gpu::parse_model("example", switched_on(text), "model.example.toml", &notes);
    REQUIRE_MESSAGE(whole, whole.error().text());
    CHECK(whole->idle == plain.idle);
    CHECK(whole->pinned == plain.pinned);
    CHECK(whole->snapshot == plain.snapshot);
    CHECK(!notes.empty());
    for (const std::string& key : gpu::model_keys()) {
        CAPTURE(key);
        CHECK(has_key(switched_on(text), key));
    }
}

TEST_CASE("docs/api.md names every route with the scope that it needs") {
    const std::string text = example("../docs/api.md");
    for (const Route& route : routes()) {
        const std::string_view method = route.method == Method::get ? "GET" : route.method == Method::post ? "POST" : "DELETE";
        const std::string_view scope = route.scope == Scope::open ? "none" : name_of(route.scope);
        const std::string row = fmt::format("| {} {} | {} |", method, route.pattern, scope);
        CAPTURE(row);
        CHECK(text.find(row) != std::string::npos);
    }
}
