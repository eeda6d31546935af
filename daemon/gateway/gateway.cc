#include "daemon/gateway/gateway.hh"

#include "base/json.hh"
#include "daemon/answers.hh"
#include "daemon/daemon.hh"
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

std::string head_for_engine(const http::Request& request, size_t body_bytes) {
    return fmt::format("POST {} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n{}\r\n", request.path, body_bytes,
                       headers_for_engine(request));
}

}  // namespace

void answer_error(const http::Request& request, http::Response& response, const Error& error) {
    const WireRow* row = find_wire(request.path);
    const bool is_anthropic = row == nullptr && request.has_header("anthropic-version");
    torpor::answer_error(response, error);  // status and headers
    const auto body = row != nullptr ? row->error_body(error) : is_anthropic ? anthropic_error(error) : openai_error(error);
    answer_json(response, response.status, body);
}

Gateway::Gateway(gpu::Pool& pool)
    : answer_bytes_(answer_bytes_in_flight_max), shared_{pool, relay_, answer_bytes_, {}} {}

void Gateway::take(Inquiry inquiry) {
    auto exchange = std::make_shared<Exchange>(shared_, std::move(inquiry));
    exchange->begin();
    relay_.adopt(std::move(exchange));
}

void forward(Call& call, http::Response& response) {
    const WireRow& row = *find_wire(call.request.path);
    auto scan = scan_request(call.body.text);
    if (!scan) return answer_error(call.request, response, scan.error());
    auto model = call.daemon.pool.find(scan->model);
    if (!model) return answer_error(call.request, response, model.error());
    if (auto checked = check_wire(*model, row); !checked) return answer_error(call.request, response, checked.error());

    auto inquiry = std::make_shared<Inquiry>();
    inquiry->wire = &row;
    inquiry->model = model->name;
    inquiry->principal = call.principal.name;
    inquiry->wants_stream = scan->wants_stream;
    inquiry->is_http_1_0 = call.request.version == "HTTP/1.0";
    inquiry->keep_alive = scan->keep_alive;
    if (model->name != scan->model) replace_model(call.body.text, *scan, model->name);
    if (row.usage_is_an_option && scan->wants_stream && !scan->has_stream_options) {
        add_stream_options(call.body.text);
        inquiry->drops_usage = true;
    }
    inquiry->head = head_for_engine(call.request, call.body.text.size());
    inquiry->body = std::move(call.body);
    http::detach_connection([inquiry, &gateway = call.daemon.gateway](std::unique_ptr<http::Detached> client) {
        inquiry->client = std::move(client);
        gateway.take(std::move(*inquiry));
    });
    response.status = 200;  // not sent
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
