// Torpor's own HTTP API: handlers for the route table. docs/api.md says what each takes and gives.
#pragma once

#include "daemon/routes.hh"
#include "gpu/pool.hh"

namespace torpor::api {

// system.cc
void healthz(Call& call, http::Response& response);
void readyz(Call& call, http::Response& response);
void version(Call& call, http::Response& response);
void doctor(Call& call, http::Response& response);
void reload(Call& call, http::Response& response);
void shut_down(Call& call, http::Response& response);

// models.cc
void list_models(Call& call, http::Response& response);
void show_model(Call& call, http::Response& response);
void add_model(Call& call, http::Response& response);
void remove_model(Call& call, http::Response& response);

// deploy.cc
void deploy(Call& call, http::Response& response);

// workers.cc
void suspend_model(Call& call, http::Response& response);
void resume_model(Call& call, http::Response& response);
void stop_model(Call& call, http::Response& response);
void show_log(Call& call, http::Response& response);
void show_requests(Call& call, http::Response& response);

// snapshots.cc
void list_snapshots(Call& call, http::Response& response);
void verify_snapshot(Call& call, http::Response& response);
void remove_snapshot(Call& call, http::Response& response);

// keys.cc
void list_keys(Call& call, http::Response& response);
void add_key(Call& call, http::Response& response);
void remove_key(Call& call, http::Response& response);

// providers.cc
void list_providers(Call& call, http::Response& response);

// sessions.cc
void create_session(Call& call, http::Response& response);
void list_sessions(Call& call, http::Response& response);
void show_session(Call& call, http::Response& response);
void set_session(Call& call, http::Response& response);
void remove_session(Call& call, http::Response& response);
void follow_session(Call& call, http::Response& response);
void show_content(Call& call, http::Response& response);

// session_transfer.cc
void fork_session(Call& call, http::Response& response);
void export_session(Call& call, http::Response& response);
void import_session(Call& call, http::Response& response);

// turns.cc
void add_prompt(Call& call, http::Response& response);
void withdraw_prompt(Call& call, http::Response& response);
void steer_turn(Call& call, http::Response& response);
void answer_question(Call& call, http::Response& response);
void interrupt_turn(Call& call, http::Response& response);
void retry_turn(Call& call, http::Response& response);
void set_environment(Call& call, http::Response& response);
void list_permissions(Call& call, http::Response& response);
void add_permission(Call& call, http::Response& response);
void remove_permission(Call& call, http::Response& response);
void trust_folder(Call& call, http::Response& response);
void distrust_folder(Call& call, http::Response& response);

// models.cc: what others need of it. The file of a model; whether its names are free, itself aside, and there
// may be one more; and reloading after `change` of a file, of which an error tells.
std::filesystem::path file_of(const Daemon& daemon, const std::string& model);
Result<void> check_free(const Daemon& daemon, const gpu::Model& model);
Result<void> take_change(Daemon& daemon, const std::string& change);

// What `torpor ps` shows of one model.
std::string describe(const gpu::ModelStatus& status);

}  // namespace torpor::api
