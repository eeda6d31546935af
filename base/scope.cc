#include "base/scope.hh"

#include "base/text.hh"

#include <array>

namespace torpor {

namespace {

constexpr std::array<std::string_view, 5> names{"open", "models", "sessions", "admin", "owner"};

}  // namespace

std::string_view name_of(Scope scope) {
    return names[static_cast<size_t>(scope)];
}

Result<Scope> parse_scope(std::string_view text) {
    for (const Scope scope : {Scope::models, Scope::sessions, Scope::admin}) {
        if (text == name_of(scope)) return scope;
    }
    return fail(Kind::invalid, "a key's scope is models, sessions or admin, not \"{}\"{}", text,
                did_you_mean(text, {"models", "sessions", "admin"}));
}

bool allows(Scope have, Scope need) {
    return have >= need;
}

}  // namespace torpor
