// A scanned model name is what stands in the body; replacing it by another, and a seed that was given, are seen by the
// next scan.
#include "daemon/gateway/request_scan.hh"

#include <cstdlib>

using namespace torpor::gateway;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    std::string body(reinterpret_cast<const char*>(data), size);
    auto scan = scan_request(body);
    if (!scan) return 0;
    if (body[scan->model_begin] != '"' || body[scan->model_end - 1] != '"') std::abort();
    if (!scan->has_seed) add_seed(body, *scan, 4711);
    if (body[scan->model_begin] != '"' || body[scan->model_end - 1] != '"') std::abort();
    replace_model(body, *scan, "another");
    const auto again = scan_request(body);
    if (!again || again->model != "another" || again->wants_stream != scan->wants_stream || !again->has_seed) std::abort();
    return 0;
}
