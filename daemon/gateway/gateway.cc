#include "daemon/gateway/gateway.hh"

#include "base/json.hh"
#include "daemon/answers.hh"
#include "daemon/daemon.hh"
#include "daemon/gateway/conversation_scan.hh"
#include "daemon/gateway/limits.hh"
#include "daemon/gateway/request_scan.hh"
#include "daemon/gateway/wires.hh"
#include "gpu/limits.hh"

#include <malloc.h>
#include <sys/random.h>

#include <algorithm>
#include <array>
#include <iterator>

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

// What a name stands for: a model, or one of its adapters.
struct Chosen {
    gpu::Model model;
    const gpu::Adapter* adapter = nullptr;  // in `model`; null: its own weights
    std::string name;                       // of the one or the other; not an alias
};

bool has(const std::vector<gpu::Wire>& wires, gpu::Wire wire) {
    return std::ranges::find(wires, wire) != wires.end();
}

Result<void> check_wire(const Chosen& chosen, const WireRow& row) {
    auto wires = gpu::wires_of(chosen.model);
    if (chosen.adapter != nullptr) {
        const auto& possible = gpu::find_engine(chosen.model.engine)->adapters.wires;
        std::erase_if(wires, [&](gpu::Wire wire) { return !has(possible, wire); });
    }
    if (has(wires, row.wire)) return {};
    std::vector<std::string_view> names;
    for (const gpu::Wire wire : wires) names.push_back(gpu::name_of(wire));
    return fail(Kind::invalid, "{} does not speak {}; it speaks {}", chosen.name, gpu::name_of(row.wire), fmt::join(names, ", "));
}

bool keeps_prompts(const gpu::Model& model) {
    const gpu::Engine* engine = gpu::find_engine(model.engine);
    return engine != nullptr && engine->prompt_flags != nullptr && model.adapters.empty();
}

// A key that may use a model may not use its adapters for that, nor the other way round.
bool may_use(const Principal& principal, const std::string& name) {
    if (!principal.limits || principal.limits->models.empty()) return true;
    return std::ranges::find(principal.limits->models, name) != principal.limits->models.end();
}

// What this name stands for, if this caller may use it.
Result<std::shared_ptr<const Chosen>> find_model(const Call& call, const std::string& name) {
    static const std::vector<std::string> all;
    auto model = call.daemon.pool.find(name, call.principal.limits ? call.principal.limits->models : all);
    if (!model) return Failure(model.error());
    auto chosen = std::make_shared<Chosen>(Chosen{std::move(*model), nullptr, {}});
    chosen->adapter = gpu::find_adapter(chosen->model, name);
    chosen->name = chosen->adapter != nullptr ? name : chosen->model.name;
    if (may_use(call.principal, chosen->name)) return chosen;
    return fail(Kind::refused, "the key {} may not use {}", call.principal.name, chosen->name);
}

// What a model's adapters, if it has any, call for on this wire.
Result<void> add_choice(std::string& body, const RequestScan& scan, const WireRow& row, const Chosen& chosen) {
    const gpu::AdapterSupport& support = gpu::find_engine(chosen.model.engine)->adapters;
    if (chosen.model.adapters.empty() || support.request_members == nullptr || !has(support.wires, row.wire)) return {};
    if (scan.has_lora) {
        std::vector<std::string> names;
        for (const gpu::Adapter& adapter : chosen.model.adapters) names.push_back(adapter.name);
        return fail(Kind::invalid, "'lora' is Torpor's to set here: ask for an adapter by its name as the model ({})", fmt::join(names, ", "));
    }
    add_members(body, support.request_members(chosen.model, chosen.adapter));
    return {};
}

std::string head_for_engine(const http::Request& request) {
    return fmt::format("POST {} HTTP/1.1\r\nHost: localhost\r\n{}", request.path, headers_for_engine(request));
}

}  // namespace

void answer_error(const http::Request& request, http::Response& response, const Error& error) {
    const WireRow* row = find_wire(request.path);
    const bool is_anthropic = row == nullptr && request.has_header("anthropic-version");
    torpor::answer_error(response, error);  // status and headers
    const auto body = row != nullptr ? row->error_body(error) : is_anthropic ? anthropic_error(error) : openai_error(error);
    answer_json(response, response.status, body);
}

Gateway::Gateway(gpu::Pool& pool, const Limits& limits, std::chrono::milliseconds client_stall, std::filesystem::path log)
    : log_(std::move(log)), quotas_(limits.requests_per_key), relay_([this](bool is_idle) { on_tick(is_idle); }),
      answer_bytes_(answer_bytes_in_flight_max),
      shared_{pool, relay_, answer_bytes_, limits, client_stall, [this](const Outcome& outcome) { record(outcome); }} {}

void Gateway::record(const Outcome& outcome) {
    metrics_.add(outcome);
    metrics_.add_limit(outcome.limit);
    log_.add(outcome);
}

void Gateway::record_refusal(const std::string& path, const Error& error) {
    metrics_.add_limit(error.limit);
    const WireRow* row = find_wire(path);
    if (row == nullptr) return;
    static const std::string unknown = "-";
    metrics_.add({row, unknown, unknown, row_of(error.kind).http_status, row_of(error.kind).name, error.limit, false, gpu::Wake::warm, {}, 0, 0, 0, 0});
}

void Gateway::on_tick(bool is_idle) {
    log_.flush();
    // What a burst of streams took goes back to the system once, when all is quiet.
    if (std::exchange(was_idle_, is_idle) != is_idle && is_idle) ::malloc_trim(0);
}

void Gateway::take(Inquiry inquiry) {
    auto exchange = std::make_shared<Exchange>(shared_, std::move(inquiry));
    exchange->begin();
    relay_.adopt(std::move(exchange));
}

namespace {

// The model that is asked for, if this caller may ask it over this wire.
Result<std::shared_ptr<const Chosen>> choose_model(const Call& call, const WireRow& row, const std::string& name) {
    auto chosen = find_model(call, name);
    if (!chosen) return chosen;
    if (auto checked = check_wire(**chosen, row); !checked) return Failure(checked.error());
    return chosen;
}

// Whether answers to this would begin alike after each thaw: the engine draws its numbers from the same image each time.
bool wants_seed(const Call& call, const WireRow& row, const gpu::Model& model, const RequestScan& scan) {
    return row.takes_seed && !scan.has_seed && model.snapshot && call.daemon.pool.criu().is_offered() &&
           gpu::find_engine(model.engine)->same_dice;
}

// 31 bits: some engines read it as a signed number.
uint32_t fresh_seed() {
    uint32_t seed = 0;
    (void)!::getrandom(&seed, sizeof seed, 0);
    return seed >> 1;
}

// All that can be said before a worker is asked. `model` is set as far as it is known, for the log.
Result<std::shared_ptr<Inquiry>> make_inquiry(Call& call, const WireRow& row, std::string& model) {
    auto scan = scan_request(call.body.text);
    if (!scan) return Failure(scan.error());
    auto found = choose_model(call, row, scan->model);
    if (!found) return Failure(found.error());
    const Chosen* chosen = found->get();
    model = chosen->name;

    auto inquiry = std::make_shared<Inquiry>();
    if (call.principal.limits) {
        auto permit = call.daemon.gateway.quotas().admit(call.principal.name, *call.principal.limits);
        if (!permit) return Failure(permit.error());
        inquiry->permit = std::move(*permit);
    }
    inquiry->wire = &row;
    inquiry->model = chosen->name;
    inquiry->principal = call.principal.name;
    inquiry->wants_stream = scan->wants_stream;
    inquiry->is_http_1_0 = call.request.version == "HTTP/1.0";
    inquiry->keep_alive = scan->keep_alive;
    if (wants_seed(call, row, chosen->model, *scan)) add_seed(call.body.text, *scan, fresh_seed());
    const std::string_view word = gpu::find_engine(chosen->model.engine)->model_word;
    const std::string its_name(word.empty() ? chosen->name : word);
    if (its_name != scan->model) replace_model(call.body.text, *scan, its_name);
    if (auto added = add_choice(call.body.text, *scan, row, *chosen); !added) return Failure(added.error());
    if (row.usage_is_an_option && scan->wants_stream && !scan->has_stream_options) {
        add_stream_options(call.body.text);
        inquiry->drops_usage = true;
    }
    inquiry->head = head_for_engine(call.request);
    if (row.has_streams && keeps_prompts(chosen->model)) inquiry->conversation = scan_conversation(call.body.text);
    inquiry->body = std::move(call.body);
    return inquiry;
}

}  // namespace

void forward(Call& call, http::Response& response) {
    const WireRow& row = *find_wire(call.request.path);
    std::string model = "-";
    auto inquiry = make_inquiry(call, row, model);
    if (!inquiry) {
        const Error& error = inquiry.error();
        call.daemon.gateway.record({&row, model, call.principal.name, row_of(error.kind).http_status, row_of(error.kind).name,
                                    error.limit, false, gpu::Wake::warm, {}, 0, 0, 0, 0});
        return answer_error(call.request, response, error);
    }
    http::detach_connection([inquiry = *inquiry, &gateway = call.daemon.gateway](std::unique_ptr<http::Detached> client) {
        inquiry->client = std::move(client);
        gateway.take(std::move(*inquiry));
    });
    response.status = 200;  // not sent
}

namespace {

// created, created_at: both vendors want one, ours is when the daemon started.
// `parent`: whose adapter it is, if it is one.
void write_model(JsonWriter& json, const std::string& id, const std::string& parent, int64_t started_at_ms) {
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
        .key("parent");
    parent.empty() ? json.null() : json.value(parent);
    json.end_object();
}

}  // namespace

void list_models(Call& call, http::Response& response) {
    std::vector<std::string> ids;
    JsonWriter json;
    json.begin_object().member("object", "list").key("data").begin_array();
    const auto list = [&](const std::string& id, const std::string& parent) {
        if (!may_use(call.principal, id)) return;
        write_model(json, id, parent, call.daemon.started_at_ms);
        ids.push_back(id);
    };
    for (const gpu::Model& model : call.daemon.pool.models()) {
        list(model.name, "");
        for (const gpu::Adapter& adapter : model.adapters) list(adapter.name, model.name);
    }
    json.end_array().member("has_more", false);
    if (ids.empty()) {
        json.key("first_id").null().key("last_id").null();
    } else {
        json.member("first_id", ids.front()).member("last_id", ids.back());
    }
    json.end_object();
    answer_json(response, 200, json.take());
}

void show_model(Call& call, http::Response& response) {
    auto found = find_model(call, call.parameters[0]);
    if (!found) return answer_error(call.request, response, found.error());
    const Chosen& chosen = **found;
    JsonWriter json;
    write_model(json, chosen.name, chosen.adapter != nullptr ? chosen.model.name : "", call.daemon.started_at_ms);
    answer_json(response, 200, json.take());
}

void show_metrics(Call& call, http::Response& response) {
    std::string out;
    call.daemon.gateway.metrics().write(out);
    const auto to = std::back_inserter(out);
    fmt::format_to(to, "# HELP {0} Requests with a key that is not known.\n# TYPE {0} counter\n{0} {1}\n", "torpor_failed_keys_total",
                   call.daemon.failed_keys.total());
    const auto gauge = [&](std::string_view name, std::string_view help, auto write) {
        fmt::format_to(to, "# HELP {0} {1}\n# TYPE {0} gauge\n", name, help);
        write(name);
    };
    const auto models = call.daemon.pool.statuses();
    gauge("torpor_model_state", "1 for the state that a model's worker is in.", [&](std::string_view name) {
        for (const auto& of : models) {
            fmt::format_to(to, "{}{{model=\"{}\",state=\"{}\"}} 1\n", name, label_value(of.model.name), gpu::name_of(of.state));
        }
    });
    const auto each_model = [&](std::string_view name, std::string_view help, auto value) {
        gauge(name, help, [&](std::string_view) {
            for (const auto& of : models) fmt::format_to(to, "{}{{model=\"{}\"}} {}\n", name, label_value(of.model.name), value(of));
        });
    };
    each_model("torpor_model_memory_bytes", "Memory of a model's worker (PSS).", [](const auto& of) { return of.memory_bytes; });
    each_model("torpor_model_reserved_bytes", "What a model's worker has of the memory budget.", [](const auto& of) { return of.reserved_bytes; });
    const gpu::Pool::Memory memory = call.daemon.pool.memory();
    if (memory.budget) {
        gauge("torpor_memory_budget_bytes", "Memory that all workers may take together.",
              [&](std::string_view name) { fmt::format_to(to, "{} {}\n", name, *memory.budget); });
    }
    gauge("torpor_memory_reserved_bytes", "Memory that workers have of it.",
          [&](std::string_view name) { fmt::format_to(to, "{} {}\n", name, memory.taken); });
    each_model("torpor_model_snapshot_bytes", "Size of a model's snapshot.", [](const auto& of) { return of.snapshot_bytes; });
    each_model("torpor_model_prompt_state_bytes", "States of a model's prompts on disk.", [](const auto& of) { return of.prompt_bytes; });
    each_model("torpor_model_requests", "Requests under way.", [](const auto& of) { return of.requests; });
    each_model("torpor_model_waiting", "Requests that wait for the worker.", [](const auto& of) { return of.waiting; });
    gauge("torpor_connections", "Open HTTP connections.",
          [&](std::string_view name) { fmt::format_to(to, "{} {}\n", name, call.daemon.server->connection_count()); });
    gauge("torpor_body_bytes", "Bodies of requests that are read or under way.",
          [&](std::string_view name) { fmt::format_to(to, "{} {}\n", name, call.daemon.server->body_bytes()); });
    gauge("torpor_answer_bytes", "Whole answers that are collected or on their way to their clients.",
          [&](std::string_view name) { fmt::format_to(to, "{} {}\n", name, call.daemon.gateway.answer_bytes()); });
    gauge("torpor_http_threads", "Threads of the HTTP server.",
          [&](std::string_view name) { fmt::format_to(to, "{} {}\n", name, call.daemon.server->thread_count()); });
    gauge("torpor_database_log_bytes", "Size of the database's write-ahead log.",
          [&](std::string_view name) { fmt::format_to(to, "{} {}\n", name, call.daemon.store.log_bytes()); });
    response.set_content(std::move(out), "text/plain; version=0.0.4; charset=utf-8");
}

}  // namespace torpor::gateway
