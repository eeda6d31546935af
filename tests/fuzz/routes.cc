// A matched path gives as many parameters as its pattern has, none of them empty.
#include "daemon/routes.hh"

#include <algorithm>
#include <cstdlib>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    const std::string path(reinterpret_cast<const char*>(data), size);
    for (const char* method : {"GET", "POST", "DELETE", "HEAD", "BREW"}) {
        const auto match = torpor::match_route(torpor::routes(), method, path);
        if (match.route == nullptr) continue;
        if (match.parameters.size() != static_cast<size_t>(std::ranges::count(match.route->pattern, '{'))) std::abort();
        if (std::ranges::any_of(match.parameters, &std::string::empty)) std::abort();
    }
    return 0;
}
