// An answer's stream, on each wire: the same answer or the same refusal however the bytes are cut, and no more than it said.
#include "base/sse.hh"
#include "daemon/llm/wire.hh"

#include <cstdlib>

using namespace torpor;

namespace {

struct Heard : llm::Listener {
    std::string told;
    void on_delta(size_t block, llm::Block::Kind, std::string_view piece) override { told += std::to_string(block) + std::string(piece); }
    void on_block(size_t block, const llm::Block& whole) override { told += std::to_string(block) + whole.text + whole.input; }
    void on_retry(const Error&, std::chrono::milliseconds) override {}
};

std::string answer_of(const llm::Wire& wire, std::string_view bytes, size_t piece) {
    Heard heard;
    const auto decoder = wire.decode(heard);
    SseParser parser(64 * 1024);
    Result<void> taken;
    for (size_t at = 0; at < bytes.size() && taken; at += piece) {
        const auto fed = parser.feed(bytes.substr(at, piece), [&](std::string_view event, std::string_view data) {
            if (taken) taken = decoder->take(event, data);
        });
        if (!fed) return "refused";
    }
    if (!taken) return heard.told + taken.error().message;
    const auto answer = decoder->finish();
    return heard.told + (answer ? std::to_string(answer->blocks.size()) : answer.error().message);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    const std::string_view bytes(reinterpret_cast<const char*>(data), size);
    for (const llm::Wire* wire : llm::wires()) {
        if (answer_of(*wire, bytes, size + 1) != answer_of(*wire, bytes, 1)) std::abort();
    }
    return 0;
}
