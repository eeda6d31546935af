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

// What `torpor ps` shows of one model.
std::string describe(const gpu::ModelStatus& status);

}  // namespace torpor::api
