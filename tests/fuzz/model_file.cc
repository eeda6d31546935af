// A model that is accepted can be written, and reads back as the same.
#include "gpu/model_file.hh"

#include <cstdlib>

using namespace torpor::gpu;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    std::vector<std::string> notes;
    const std::string text(reinterpret_cast<const char*>(data), size);
    const auto model = parse_model("fuzzed", text, "fuzzed.toml", &notes);
    if (!model) return 0;
    const std::string written = write_model(*model);
    const auto again = parse_model("fuzzed", written, "fuzzed.toml", &notes);
    if (!again || write_model(*again) != written) std::abort();
    return 0;
}
