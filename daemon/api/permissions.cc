// What was allowed for good, and which folders are trusted.
#include "base/json.hh"
#include "daemon/agent/permissions.hh"
#include "daemon/agent/settings.hh"
#include "daemon/answers.hh"
#include "daemon/api/body.hh"
#include "daemon/api/handlers.hh"
#include "daemon/daemon.hh"
#include "store/trust.hh"

#include <charconv>

namespace torpor::api {

namespace {

void write_rules(JsonWriter& json, std::string_view key, const std::vector<store::Grant>& rules) {
    json.key(key).begin_array();
    for (const store::Grant& rule : rules) {
        json.begin_object();
        if (rule.id != 0) json.member("id", rule.id).member("folder", rule.folder).member("created_at_ms", rule.created_at_ms);
        json.member("decision", rule.decision).member("rule", rule.rule).member("by", rule.by).end_object();
    }
    json.end_array();
}

void write_settings(JsonWriter& json, const agent::Settings& settings) {
    write_rules(json, "rules", settings.rules);
    write_rules(json, "untrusted", settings.untrusted);
    json.key("problems").begin_array();
    for (const std::string& problem : settings.problems) json.value(problem);
    json.end_array().member("project", settings.project.string()).member("hash", settings.hash).member("is_trusted", settings.is_trusted);
    json.key("files").begin_array();
    for (const agent::SettingsFile& file : settings.files) json.begin_object().member("path", file.path.string()).member("text", file.text).end_object();
    json.end_array();
}

Result<agent::Settings> settings_of(Call& call, const std::string& folder) {
    if (!folder.starts_with('/')) return fail(Kind::invalid, "'folder' must be an absolute path");
    return agent::read_settings(folder, call.daemon.folders.config, call.daemon.store);
}

}  // namespace

void list_permissions(Call& call, http::Response& response) {
    const std::string folder = call.request.get_param_value("folder");
    auto grants = call.daemon.store.read([&](store::Connection& db) { return store::all_grants(db, folder); });
    if (!grants) return answer_error(response, grants.error());
    JsonWriter json;
    json.begin_object();
    write_rules(json, "permissions", *grants);
    if (!folder.empty()) {
        auto settings = settings_of(call, folder);
        if (!settings) return answer_error(response, settings.error());
        json.key("settings").begin_object();
        write_settings(json, *settings);
        json.end_object();
    }
    answer_json(response, 200, json.end_object().take());
}

void add_permission(Call& call, http::Response& response) {
    auto body = Body::parse(call.body.text, {"folder", "rule", "decision"});
    if (!body) return answer_error(response, body.error());
    store::Grant grant{.id = 0, .folder = {}, .rule = {}, .decision = "allow", .by = call.principal.name, .created_at_ms = store::now_ms()};
    body->text("folder", grant.folder);
    body->text("rule", grant.rule);
    body->text("decision", grant.decision);
    if (body->error()) return answer_error(response, *body->error());
    if (!grant.folder.starts_with('/')) return answer_error(response, {Kind::invalid, "'folder' must be an absolute path", {}});
    if (grant.decision != "allow" && grant.decision != "ask" && grant.decision != "deny") {
        return answer_error(response, {Kind::invalid, "'decision' must be allow, ask or deny", {}});
    }
    auto done = agent::check_rule(grant.rule);
    if (done) done = call.daemon.store.write([&](store::Connection& db) { return store::put_grant(db, grant); });
    if (!done) return answer_error(response, done.error());
    answer_json(response, 201, "{\"ok\":true}");
}

void remove_permission(Call& call, http::Response& response) {
    const std::string& text = call.parameters[0];
    int64_t id = 0;
    const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), id);
    if (code != std::errc() || end != text.data() + text.size()) return answer_error(response, {Kind::invalid, "a permission is named by its number", {}});
    auto removed = call.daemon.store.write([&](store::Connection& db) { return store::remove_grant(db, id); });
    if (!removed) return answer_error(response, removed.error());
    answer_json(response, 200, "{\"ok\":true}");
}

void trust_folder(Call& call, http::Response& response) {
    auto body = Body::parse(call.body.text, {"folder", "hash"});
    if (!body) return answer_error(response, body.error());
    std::string folder, hash;
    body->text("folder", folder);
    body->text("hash", hash);
    if (body->error()) return answer_error(response, *body->error());
    auto settings = settings_of(call, folder);
    if (!settings) return answer_error(response, settings.error());
    if (settings->project.empty()) return answer_error(response, {Kind::not_found, "there are no settings in " + folder + " to trust", {}});
    if (settings->hash != hash) {
        return answer_error(response, {Kind::conflict, "the settings of this folder are not those that were looked at; look again", {}});
    }
    auto done = call.daemon.store.write([&](store::Connection& db) {
        return store::put_trust(db, {settings->project.string(), hash, call.principal.name, store::now_ms()});
    });
    if (!done) return answer_error(response, done.error());
    answer_json(response, 200, "{\"ok\":true}");
}

void distrust_folder(Call& call, http::Response& response) {
    const std::string folder = call.request.get_param_value("folder");
    auto settings = settings_of(call, folder);
    if (!settings) return answer_error(response, settings.error());
    const std::string project = settings->project.empty() ? folder : settings->project.string();
    auto done = call.daemon.store.write([&](store::Connection& db) { return store::remove_trust(db, project); });
    if (!done) return answer_error(response, done.error());
    answer_json(response, 200, "{\"ok\":true}");
}

}  // namespace torpor::api
