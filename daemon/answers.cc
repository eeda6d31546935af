#include "daemon/answers.hh"

#include "base/json.hh"

namespace torpor {

void answer_json(http::Response& response, int status, std::string json) {
    response.status = status;
    response.set_content(std::move(json), "application/json");
}

void answer_error(http::Response& response, const Error& error) {
    const KindRow& row = row_of(error.kind);
    JsonWriter json;
    json.begin_object().key("error").begin_object().member("kind", row.name).member("message", error.message);
    if (!error.cause.empty()) json.member("cause", error.cause);
    json.end_object().end_object();
    if (error.kind == Kind::busy || error.kind == Kind::unavailable) response.set_header("Retry-After", std::to_string(error.retry_after_s));
    if (error.kind == Kind::unauthorized) response.set_header("WWW-Authenticate", "Bearer");
    answer_json(response, row.http_status, json.take());
}

}  // namespace torpor
