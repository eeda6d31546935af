// The model's part of a turn: what it is asked, and its answer as events.
#include "base/json.hh"
#include "base/log.hh"
#include "daemon/agent/limits.hh"
#include "daemon/agent/turn.hh"

#include <algorithm>
#include <chrono>
#include <set>

namespace torpor::agent {

namespace {

using Clock = std::chrono::steady_clock;

int64_t ms_since(Clock::time_point began) {
    return std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - began).count();
}

std::string_view name_of(llm::Stop stop) {
    switch (stop) {
        case llm::Stop::end: return "end";
        case llm::Stop::tool_calls: return "tool_calls";
        case llm::Stop::output_limit: return "output_limit";
        case llm::Stop::refused: return "refused";
    }
    return "";
}

std::string_view name_of(llm::Block::Kind kind) {
    switch (kind) {
        case llm::Block::Kind::reasoning: return "reasoning";
        case llm::Block::Kind::tool_call: return "tool_call";
        default: return "text";
    }
}

bool is_object(const std::string& json) {
    simdjson::dom::parser parser;
    simdjson::dom::object object;
    return parser.parse(json).get(object) == simdjson::SUCCESS;
}

uint64_t bytes_of(const llm::Request& request, uint64_t& images) {
    uint64_t bytes = request.system.size();
    for (const llm::ToolSpec& tool : request.tools) bytes += tool.name.size() + tool.description.size() + tool.schema.size();
    for (const llm::Message& message : request.messages) {
        for (const llm::Block& block : message.blocks) {
            if (block.kind == llm::Block::Kind::image) {
                ++images;
            } else {
                bytes += block.text.size() + block.input.size() + block.opaque.size();
            }
        }
    }
    return bytes;
}

}  // namespace

// Makes events of what comes. An event that cannot be stored ends the asking: nothing is done that is not in the log.
class Turn::Telling : public llm::Listener {
  public:
    Telling(Turn& turn, int64_t answer, std::stop_source& stop)
        : turn_(turn), number_(turn.progress_.turn().number), answer_(answer), stop_(stop) {
        for (const CallState& call : turn.progress_.turn().calls) ids_.insert(call.call);
    }

    void on_delta(size_t block, llm::Block::Kind kind, std::string_view piece) override {
        turn_.session_.tell_delta(fmt::format(R"("turn":{},"answer":{},"block":{})", number_, answer_, block), name_of(kind), piece);
    }

    void on_block(size_t block, const llm::Block& whole) override {
        if (error || !stored_.insert(block).second) return;
        JsonWriter body;
        body.begin_object().member("turn", number_).member("answer", answer_).member("block", block);
        if (whole.kind == llm::Block::Kind::tool_call) {
            put_call(body, block, whole);
        } else {
            body.member("text", whole.text);
        }
        if (!whole.opaque.empty() && is_json(whole.opaque)) body.key("opaque").raw(whole.opaque);
        if (!whole.wire.empty()) body.member("wire", whole.wire);
        const bool is_text = whole.kind == llm::Block::Kind::text;
        keep(turn_.append(name_of(whole.kind), body.end_object().text(), is_text ? whole.text : std::string_view()));
    }

    void on_retry(const Error& why, std::chrono::milliseconds wait) override {
        JsonWriter body;
        body.begin_object().member("turn", number_).member("reason", why.text()).member("wait_ms", wait.count()).end_object();
        keep(turn_.append("retried", body.text()));
    }

    int64_t answer() const { return answer_; }
    std::optional<Error> error;

  private:
    static bool is_json(const std::string& text) {
        simdjson::dom::parser parser;
        simdjson::dom::element element;
        return parser.parse(text).get(element) == simdjson::SUCCESS;
    }

    void put_call(JsonWriter& body, size_t block, const llm::Block& whole) {
        // Some servers give none, or the same one again.
        std::string id = whole.call;
        if (id.empty() || ids_.contains(id)) id = fmt::format("call_{}_{}_{}", number_, answer_, block);
        ids_.insert(id);
        body.member("call", id).member("tool", whole.tool);
        if (whole.input.empty() || is_object(whole.input)) {
            body.key("input").raw(whole.input.empty() ? "{}" : whole.input);
        } else {
            body.key("input").raw("{}").member("malformed", whole.input);
        }
    }

    void keep(Result<int64_t> appended) {
        if (appended || error) return;
        error = appended.error();
        stop_.request_stop();
    }

    Turn& turn_;
    const int64_t number_, answer_;
    std::stop_source& stop_;
    std::set<size_t> stored_;
    std::set<std::string> ids_;
};

Result<llm::Request> Turn::request_for(const llm::Chosen& chosen) {
    auto system = system_prompt();
    if (!system) return Failure(system.error());
    llm::Request request;
    request.model = chosen.facts.model;
    request.system = std::move(*system);
    request.messages = context_.messages([this](const std::string& hash) {
        return parts_.options.store.read([&](store::Connection& db) { return store::find_content(db, session_.id(), hash); });
    });
    // A model that must be told of tools in its prompt gets few: those that the mode allows without a question.
    const Mode mode = parse_mode(row_.mode).value_or(Mode::read_only);
    for (const Tool& tool : tools()) {
        if (!chosen.facts.takes_tools && tool.level > mode) continue;
        if (tool.name == structured_output_name || (tool.begin != nullptr && !row_.caller.empty())) continue;
        request.tools.push_back({std::string(tool.name), std::string(tool.description), std::string(tool.schema)});
    }
    if (const std::string& schema = progress_.turn().schema; !schema.empty()) {
        const Tool& tool = *find_tool(structured_output_name);
        request.tools.push_back({std::string(tool.name), std::string(tool.description), schema});
        if (progress_.turn().reminders > 0) request.must_call = tool.name;
    }
    request.session = session_.id();
    return request;
}

// Whether the model's window takes it. The provider is asked for a count only where it might not.
Result<bool> Turn::fits(const llm::Chosen& chosen, const llm::Request& request, std::string& reason) {
    const uint64_t window = chosen.facts.context_tokens;
    if (window == 0) return true;
    const uint64_t room = window - std::min(answer_tokens_reserve, window / 8);
    uint64_t images = 0;
    const uint64_t bytes = bytes_of(request, images);
    if (bytes / bytes_a_token_least + images * image_tokens_most <= room) return true;
    auto count = chosen.provider->count(request, parts_.stopper.token());
    if (!count && parts_.stopper.token().stop_requested()) return Failure(count.error());
    if (!count) {
        log::debug("the tokens of session {} cannot be counted: {}", session_.id(), count.error().text());
        return true;
    }
    if (count->tokens <= room) return true;
    reason = fmt::format("the conversation has {}{} tokens, more than the window of {} takes ({}, of which {} are for the answer); "
                         "set another model, or begin a new session",
                         count->is_exact ? "" : "about ", count->tokens, chosen.facts.model, window, window - room);
    return false;
}

Result<void> Turn::ask() {
    auto chosen = parts_.options.providers.choose(row_.model);
    if (!chosen) return end("failed", chosen.error().text(), "", true);
    auto request = request_for(*chosen);
    if (!request) return Failure(request.error());
    std::string reason;
    auto fit = fits(*chosen, *request, reason);
    if (!fit) return {};  // it is to stop: the next step sees why
    if (!*fit) return end("limit", reason, "context_tokens", true);

    std::stop_source stop;
    const std::stop_callback pass_on(parts_.stopper.token(), [&] { stop.request_stop(); });
    Telling telling(*this, progress_.turn().last_answer + 1, stop);
    const auto began = Clock::now();
    auto answer = chosen->provider->ask(*request, telling, stop.get_token());
    if (!answer) session_.clear_deltas();
    if (telling.error) return Failure(*telling.error);
    if (answer) {
        for (size_t i = 0; i < answer->blocks.size(); ++i) telling.on_block(i, answer->blocks[i]);  // those that it did not tell
        if (telling.error) return Failure(*telling.error);
        return take_answer(*chosen, *answer, telling, ms_since(began));
    }
    if (parts_.stopper.token().stop_requested()) return {};
    const bool is_too_long = answer.error().kind == Kind::too_large;
    return end(is_too_long ? "limit" : "failed", answer.error().text(), is_too_long ? "context_tokens" : "", true);
}

Result<void> Turn::take_answer(const llm::Chosen& chosen, const llm::Answer& answer, const Telling& told, int64_t ms) {
    const auto cost = answer.usage ? llm::cost_of(chosen.facts, *answer.usage) : std::nullopt;
    JsonWriter body;
    body.begin_object().member("turn", progress_.turn().number).member("answer", told.answer());
    body.member("model", answer.model.empty() ? chosen.facts.model : answer.model).member("stop", name_of(answer.stop)).key("usage");
    if (answer.usage) {
        body.begin_object().member("input", answer.usage->input_tokens).member("output", answer.usage->output_tokens);
        body.member("cache_read", answer.usage->cache_read_tokens).member("cache_write", answer.usage->cache_write_tokens).end_object();
    } else {
        body.null();
    }
    body.key("cost");
    if (cost) {
        body.value(*cost);
    } else {
        body.null();
    }
    body.member("told", progress_.last_seq()).member("ms", ms).end_object();
    const auto add_usage = [&](store::Connection& db) -> Result<void> {
        if (!answer.usage) return {};
        const auto count = [](uint64_t tokens) { return static_cast<int64_t>(tokens); };
        return store::add_usage(db, {session_.id(), chosen.facts.provider, chosen.facts.model, count(answer.usage->input_tokens),
                                     count(answer.usage->output_tokens), count(answer.usage->cache_read_tokens),
                                     count(answer.usage->cache_write_tokens), cost, store::now_ms()});
    };
    auto stored = append("answered", body.text(), {}, {}, add_usage);
    if (!stored) return Failure(stored.error());
    return {};
}

}  // namespace torpor::agent
