#include "base/error.hh"

#include <array>
#include <cerrno>
#include <cstring>

namespace torpor {

namespace {

// JSON-RPC codes: -32602 and -32603 are the specification's; -32000 to -32099 are ours to give.
constexpr std::array<KindRow, 14> rows{{
    {Kind::invalid, "invalid", 400, -32602, 2},
    {Kind::unauthorized, "unauthorized", 401, -32001, 4},
    {Kind::refused, "refused", 403, -32003, 4},
    {Kind::not_found, "not_found", 404, -32004, 1},
    {Kind::wrong_method, "wrong_method", 405, -32005, 2},
    {Kind::conflict, "conflict", 409, -32009, 1},
    {Kind::too_large, "too_large", 413, -32013, 1},
    {Kind::busy, "busy", 429, -32029, 1},
    {Kind::cancelled, "cancelled", 499, -32099, 1},
    {Kind::internal, "internal", 500, -32603, 1},
    {Kind::engine, "engine", 502, -32052, 1},
    {Kind::unavailable, "unavailable", 503, -32053, 1},
    {Kind::timeout, "timeout", 504, -32054, 1},
    {Kind::no_daemon, "no_daemon", 503, -32055, 3},
}};

}  // namespace

std::string Error::text() const {
    return cause.empty() ? message : message + ": " + cause;
}

Failure fail_errno(Kind kind, std::string message) {
    const int code = errno;
    char buffer[128];
    return Failure(Error{kind, std::move(message), strerror_r(code, buffer, sizeof buffer), {}, 1});
}

const KindRow& row_of(Kind kind) {
    for (const KindRow& row : rows) {
        if (row.kind == kind) return row;
    }
    return row_of(Kind::internal);
}

const KindRow& row_of_answer(std::string_view name, int http_status) {
    for (const KindRow& row : rows) {
        if (row.name == name) return row;
    }
    for (const KindRow& row : rows) {
        if (row.http_status == http_status) return row;
    }
    return row_of(Kind::internal);
}

}  // namespace torpor
