// The parser gives the same events however the bytes are cut.
#include "base/sse.hh"

#include <cstdlib>

static std::string events_of(std::string_view bytes, size_t piece) {
    torpor::SseParser parser(4096);
    std::string all;
    for (size_t at = 0; at < bytes.size(); at += piece) {
        const auto fed = parser.feed(bytes.substr(at, piece), [&](std::string_view event, std::string_view data) {
            all.append(event).append(1, '\x1f').append(data).append(1, '\x1e');
        });
        if (!fed) return "refused";
    }
    return all + std::string(parser.last_event_id());
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    const std::string_view bytes(reinterpret_cast<const char*>(data), size);
    if (events_of(bytes, size + 1) != events_of(bytes, 1)) std::abort();
    return 0;
}
