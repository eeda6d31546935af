#include "daemon/gateway/gateway.hh"

#include "base/json.hh"
#include "base/log.hh"
#include "daemon/answers.hh"
#include "daemon/daemon.hh"
#include "daemon/gateway/exchange.hh"
#include "daemon/gateway/limits.hh"
#include "daemon/gateway/request_scan.hh"
#include "daemon/gateway/wires.hh"
#include "gpu/limits.hh"

#include <algorithm>
#include <array>

namespace torpor::gateway {

namespace {

// Headers that a client may say something with to the engine. Never its key.
constexpr std::array<std::string_view, 4> passed_on{"Accept", "anthropic-version", "anthropic-beta", "OpenAI-Beta"};

std::string headers_for_engine(const http::Request& request) {
    std::string headers = "Content-Type: application/json\r\n";
    for (const std::string_view name : passed_on) {
        const std::string value = request.get_header_value(std::string(name));
        if (!value.empty() && value.find_first_of("\r\n") == std::string::npos) {
            headers += fmt::format("{}: {}\r\n", name, value);
        }
    }
    return headers;
}

Result<void> check_wire(const gpu::Model& model, const WireRow& row) {
    const auto wires = gpu::wires_of(model);
    if (std::ranges::find(wires, row.wire) != wires.end()) return {};
    std::vector<std::string_view> names;
    for (const gpu::Wire wire : wires) names.push_back(gpu::name_of(wire));
    return fail(Kind::invalid, "{} does not speak {}; it speaks {}", model.name, gpu::name_of(row.wire), fmt::join(names, ", "));
}

// Asks until a worker answers: one that dies before it says anything is replaced, and nobody notices.
Result<std::shared_ptr<Exchange>> ask(Call& call, const std::string& model, std::string& body, const RequestScan& scan,
                                      int client_fd) {
    uint64_t dead_generation = 0;
    for (int tries = 1;; ++tries) {
        auto lease = call.daemon.pool.acquire(model, client_fd, gpu::wait_max, dead_generation);
        if (!lease) return Failure(lease.error());
        if (tries == 1 && lease->model() != scan.model) replace_model(body, scan, lease->model());
        dead_generation = lease->generation();
        auto exchange = std::make_shared<Exchange>(std::move(*lease), client_fd);
        auto sent = exchange->send(call.request.path, headers_for_engine(call.request), body);
        if (sent) return exchange;
        if (sent.error().kind != Kind::engine || tries == tries_max) return Failure(sent.error());
        log::info("{}: asking again: {}", model, sent.error().text());
    }
}

void set_timing(http::Response& response, const Exchange& exchange) {
    const gpu::Lease& lease = exchange.lease();
    response.set_header("Server-Timing",
                        fmt::format("queue;dur={:.2f}, wake;dur={:.2f};desc={}, first;dur={:.2f}", lease.queue_ms,
                                    lease.wake_ms, gpu::name_of(lease.wake), exchange.first_byte_ms()));
}

// Passes the stream on, piece by piece. What goes wrong from now on is an event of the stream.
void stream(Call& call, http::Response& response, std::shared_ptr<Exchange> exchange, const WireRow& row) {
    response.set_header("Cache-Control", "no-cache");
    auto* connection = &http::current_connection()->stream;
    response.set_chunked_content_provider(
        exchange->content_type(),
        [exchange, &row, connection, slot = call.long_slot](size_t, httplib::DataSink& sink) {
            if (!connection->flush()) return false;
            auto piece = exchange->read();
            if (!piece) {
                if (piece.error().kind == Kind::cancelled) return false;
                const std::string event = row.error_event(piece.error());
                sink.write(event.data(), event.size());
                sink.done();
                exchange->finish();
                return true;
            }
            if (piece->empty()) {
                exchange->finish();
                sink.done();
                return true;
            }
            return sink.write(piece->data(), piece->size());
        });
}

}  // namespace

void answer_error(const http::Request& request, http::Response& response, const Error& error) {
    const WireRow* row = find_wire(request.path);
    const bool is_anthropic = row == nullptr && request.has_header("anthropic-version");
    torpor::answer_error(response, error);  // status and headers
    const auto body = row != nullptr ? row->error_body(error) : is_anthropic ? anthropic_error(error) : openai_error(error);
    answer_json(response, response.status, body);
}

void forward(Call& call, http::Response& response) {
    const WireRow& row = *find_wire(call.request.path);
    auto scan = scan_request(call.body);
    if (!scan) return answer_error(call.request, response, scan.error());
    auto model = call.daemon.pool.find(scan->model);
    if (!model) return answer_error(call.request, response, model.error());
    if (auto checked = check_wire(*model, row); !checked) return answer_error(call.request, response, checked.error());

    const int client_fd = http::current_connection()->stream.socket();
    auto exchange = ask(call, model->name, call.body, *scan, client_fd);
    if (!exchange) return answer_error(call.request, response, exchange.error());
    std::string().swap(call.body);
    set_timing(response, **exchange);
    response.status = (*exchange)->status();
    if ((*exchange)->content_type().starts_with("text/event-stream")) {
        return stream(call, response, std::move(*exchange), row);
    }
    auto whole = (*exchange)->read_all();
    const std::string type = (*exchange)->content_type();
    (*exchange)->finish();
    if (!whole) return answer_error(call.request, response, whole.error());
    response.set_content(std::move(*whole), type.empty() ? "application/json" : type);
}

namespace {

// created, created_at: both vendors want one, ours is when the daemon started.
void write_model(JsonWriter& json, const std::string& id, int64_t started_at_ms) {
    const std::time_t seconds = static_cast<std::time_t>(started_at_ms / 1000);
    std::tm utc{};
    gmtime_r(&seconds, &utc);
    char created_at[32];
    const size_t length = std::strftime(created_at, sizeof created_at, "%Y-%m-%dT%H:%M:%SZ", &utc);
    json.begin_object()
        .member("id", id)
        .member("object", "model")
        .member("type", "model")
        .member("display_name", id)
        .member("created", static_cast<int64_t>(seconds))
        .member("created_at", std::string_view(created_at, length))
        .member("owned_by", "torpor")
        .end_object();
}

}  // namespace

void list_models(Call& call, http::Response& response) {
    const auto models = call.daemon.pool.models();
    JsonWriter json;
    json.begin_object().member("object", "list").key("data").begin_array();
    for (const gpu::Model& model : models) write_model(json, model.name, call.daemon.started_at_ms);
    json.end_array().member("has_more", false);
    if (models.empty()) {
        json.key("first_id").null().key("last_id").null();
    } else {
        json.member("first_id", models.front().name).member("last_id", models.back().name);
    }
    json.end_object();
    answer_json(response, 200, json.take());
}

void show_model(Call& call, http::Response& response) {
    auto model = call.daemon.pool.find(call.parameters[0]);
    if (!model) return answer_error(call.request, response, model.error());
    JsonWriter json;
    write_model(json, model->name, call.daemon.started_at_ms);
    answer_json(response, 200, json.take());
}

}  // namespace torpor::gateway
