// Whole or byte by byte: the same answer, or refused both times.
#include "daemon/gateway/response_parser.hh"

#include <cstdlib>

static std::string parse(std::string_view bytes, size_t piece) {
    torpor::gateway::ResponseParser parser;
    std::string out;
    for (size_t at = 0; at < bytes.size() && !parser.is_complete(); at += piece) {
        if (!parser.feed(bytes.substr(at, piece), out)) return "refused";
    }
    return fmt::format("{} {} {}", parser.is_complete(), parser.has_head() ? parser.status() : 0, out);
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    const std::string_view bytes(reinterpret_cast<const char*>(data), size);
    const std::string whole = parse(bytes, size + 1), pieces = parse(bytes, 1);
    // Bytes after a complete answer are an error when they come with it, and not looked at when they do not.
    if (whole != pieces && whole != "refused") std::abort();
    return 0;
}
