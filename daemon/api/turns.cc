#include "base/base64.hh"
#include "base/json.hh"
#include "daemon/agent/sessions.hh"
#include "daemon/agent/turns.hh"
#include "daemon/answers.hh"
#include "daemon/api/body.hh"
#include "daemon/api/handlers.hh"
#include "daemon/daemon.hh"

#include <array>

namespace torpor::api {

namespace {

namespace dom = simdjson::dom;

void answer_event(http::Response& response, int status, const Result<int64_t>& event) {
    if (!event) return answer_error(response, event.error());
    answer_json(response, status, fmt::format("{{\"event\":{}}}", *event));
}

// By its first bytes: what a client says of it may be wrong, and providers refuse the whole request for that.
std::string_view image_type_of(std::string_view bytes) {
    using namespace std::string_view_literals;
    if (bytes.starts_with("\x89PNG\r\n\x1A\n"sv)) return "image/png";
    if (bytes.starts_with("\xFF\xD8\xFF"sv)) return "image/jpeg";
    if (bytes.starts_with("GIF8"sv)) return "image/gif";
    if (bytes.starts_with("RIFF"sv) && bytes.substr(0, 12).ends_with("WEBP"sv)) return "image/webp";
    return {};
}

// "images": [{"data": BASE64, "media_type": "..."}], if they are there.
Result<std::vector<agent::Turns::Image>> images_of(const std::string& text) {
    std::vector<agent::Turns::Image> images;
    dom::parser parser;
    dom::object object;
    dom::element element;
    if (parser.parse(text).get(object) || object["images"].get(element)) return images;
    dom::array array;
    if (element.get(array)) return fail(Kind::invalid, "'images' must be a list of objects with 'data' in base64");
    for (const dom::element one : array) {
        std::string_view data;
        if (one["data"].get(data)) return fail(Kind::invalid, "'images' must be a list of objects with 'data' in base64");
        auto bytes = from_base64(data);
        if (!bytes) return fail(Kind::invalid, "an image's 'data' is not base64");
        const std::string_view type = image_type_of(*bytes);
        if (type.empty()) return fail(Kind::invalid, "an image is none that models take; they take PNG, JPEG, GIF and WebP");
        images.push_back({std::string(type), std::move(*bytes)});
    }
    return images;
}

// As JSON; empty if there is none.
std::string schema_of(const std::string& text) {
    dom::parser parser;
    dom::object object;
    dom::element schema;
    return parser.parse(text).get(object) || object["schema"].get(schema) ? std::string() : simdjson::minify(schema);
}

}  // namespace

void add_prompt(Call& call, http::Response& response) {
    auto body = Body::parse(call.body.text, {"text", "images", "schema"});
    if (!body) return answer_error(response, body.error());
    std::string text;
    body->text("text", text);
    if (body->error()) return answer_error(response, *body->error());
    auto images = images_of(call.body.text);
    if (!images) return answer_error(response, images.error());
    answer_event(response, 202, call.daemon.turns->prompt(call.parameters[0], {std::move(text), std::move(*images), schema_of(call.body.text)}, call.principal.name));
}

void withdraw_prompt(Call& call, http::Response& response) {
    auto body = Body::parse(call.body.text, {"prompt"});
    if (!body) return answer_error(response, body.error());
    uint32_t prompt = 0;
    body->count("prompt", prompt);
    if (body->error()) return answer_error(response, *body->error());
    auto done = call.daemon.turns->withdraw(call.parameters[0], prompt, call.principal.name);
    if (!done) return answer_error(response, done.error());
    answer_json(response, 200, "{\"ok\":true}");
}

void steer_turn(Call& call, http::Response& response) {
    auto body = Body::parse(call.body.text, {"text"});
    if (!body) return answer_error(response, body.error());
    std::string text;
    body->text("text", text);
    if (body->error()) return answer_error(response, *body->error());
    answer_event(response, 202, call.daemon.turns->steer(call.parameters[0], std::move(text), call.principal.name));
}

void answer_question(Call& call, http::Response& response) {
    auto body = Body::parse(call.body.text, {"question", "answer", "message"});
    if (!body) return answer_error(response, body.error());
    uint32_t question = 0;
    std::string answer, message;
    body->count("question", question);
    body->text("answer", answer);
    body->text("message", message);
    if (body->error()) return answer_error(response, *body->error());
    answer_event(response, 200, call.daemon.turns->decide(call.parameters[0], question, answer, std::move(message), call.principal.name));
}

void interrupt_turn(Call& call, http::Response& response) {
    auto was = call.daemon.turns->interrupt(call.parameters[0], call.principal.name);
    if (!was) return answer_error(response, was.error());
    answer_json(response, 200, fmt::format("{{\"interrupted\":{}}}", *was));
}

void retry_turn(Call& call, http::Response& response) {
    answer_event(response, 202, call.daemon.turns->retry(call.parameters[0], call.principal.name));
}

void set_environment(Call& call, http::Response& response) {
    dom::parser parser;
    dom::object object;
    agent::Environment environment;
    if (parser.parse(call.body.text).get(object)) return answer_error(response, {Kind::invalid, "the body must be a JSON object of strings", {}});
    for (const auto& [name, element] : object) {
        std::string_view value;
        if (element.get(value)) return answer_error(response, {Kind::invalid, "the body must be a JSON object of strings", {}});
        environment[std::string(name)] = value;
    }
    auto session = call.daemon.sessions->open(call.parameters[0]);
    if (!session) return answer_error(response, session.error());
    call.daemon.turns->set_environment(call.parameters[0], environment);
    answer_json(response, 200, "{\"ok\":true}");
}

}  // namespace torpor::api
