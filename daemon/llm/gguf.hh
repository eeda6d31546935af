// What a GGUF file says of its model, without its weights. Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
#pragma once

#include "base/error.hh"

#include <cstdint>
#include <filesystem>
#include <string>

namespace torpor::llm {

struct GgufFacts {
    std::string chat_template;    // empty: none, or it is not said in the first gguf_head_bytes_max
    uint64_t context_tokens = 0;  // that it was trained with; 0: not said
};

// `invalid` if it is no GGUF file of version 2 or 3.
Result<GgufFacts> read_gguf(const std::filesystem::path& file);

}  // namespace torpor::llm
