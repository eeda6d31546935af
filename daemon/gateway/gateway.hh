// /v1: the OpenAI and Anthropic wires in front of the pool. Bytes pass through; only a model's alias is
// rewritten, and the choice of an adapter added. Handlers for the route table.
#pragma once

#include "daemon/gateway/exchange.hh"
#include "daemon/gateway/metrics.hh"
#include "daemon/gateway/quota.hh"
#include "daemon/gateway/relay.hh"
#include "daemon/gateway/request_log.hh"
#include "daemon/routes.hh"

namespace torpor::gateway {

// What all requests to /v1 share. Made before the HTTP server starts, gone after it and before the pool.
class Gateway {
  public:
    Gateway(gpu::Pool& pool, const Limits& limits, std::chrono::milliseconds client_stall, std::filesystem::path log);

    Result<void> start() { return relay_.start(); }
    // Once no connection is detached any more.
    void stop() { relay_.stop(); }
    // Any thread: asks the worker, if one is ready, and leaves the rest to the relay.
    void take(Inquiry inquiry);

    Quotas& quotas() { return quotas_; }
    const Metrics& metrics() const { return metrics_; }
    size_t answer_bytes() const { return answer_bytes_.used(); }
    // An exchange that ended, or a request that was refused before there was one.
    void record(const Outcome& outcome);
    // A refusal before a request had reached its handler: counted, but not in the log, which strangers could fill.
    void record_refusal(const std::string& path, const Error& error);

  private:
    void on_tick(bool is_idle);

    Metrics metrics_;
    RequestLog log_;
    Quotas quotas_;
    bool was_idle_ = true;  // relay's thread
    Relay relay_;
    http::ByteBudget answer_bytes_;
    Exchange::Shared shared_;
};

// POST /v1/chat/completions, /completions, /responses, /embeddings, /messages, /messages/count_tokens.
void forward(Call& call, http::Response& response);

// GET /v1/models and /v1/models/{id}: one object that both vendors' clients can read.
void list_models(Call& call, http::Response& response);
void show_model(Call& call, http::Response& response);

// GET /metrics, for Prometheus.
void show_metrics(Call& call, http::Response& response);

// An error in the shape of whoever called: by path, else by the anthropic-version header.
void answer_error(const http::Request& request, http::Response& response, const Error& error);

}  // namespace torpor::gateway
