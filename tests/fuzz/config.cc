#include "daemon/config.hh"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    (void)torpor::parse_config({reinterpret_cast<const char*>(data), size}, "config.toml");
    return 0;
}
