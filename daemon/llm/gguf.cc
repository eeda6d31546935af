#include "daemon/llm/gguf.hh"

#include "daemon/llm/limits.hh"

#include <array>
#include <bit>
#include <cstdio>
#include <cstring>
#include <memory>
#include <optional>

namespace torpor::llm {

namespace {

static_assert(std::endian::native == std::endian::little, "GGUF files are little-endian here");

// Reads on until the file, or gguf_head_bytes_max, ends.
class Head {
  public:
    explicit Head(std::FILE* file) : file_(file) {}

    template <class Number>
    std::optional<Number> number() {
        Number value{};
        if (!read(&value, sizeof value)) return {};
        return value;
    }
    // Nothing if it is longer than `size_max`, or the end.
    std::optional<std::string> text(size_t size_max) {
        const auto size = number<uint64_t>();
        if (!size || *size > size_max) return {};
        std::string value(*size, '\0');
        if (!read(value.data(), value.size())) return {};
        return value;
    }
    bool skip(uint64_t size) {
        if (size > left_) return false;
        std::array<char, 4096> nowhere;
        if (size <= nowhere.size()) return read(nowhere.data(), size);  // words of a vocabulary: seeking is slower
        left_ -= size;
        return std::fseek(file_, static_cast<long>(size), SEEK_CUR) == 0;
    }

  private:
    bool read(void* to, size_t size) {
        if (size > left_) return false;
        left_ -= size;
        return size == 0 || std::fread(to, size, 1, file_) == 1;
    }

    std::FILE* file_;
    uint64_t left_ = gguf_head_bytes_max;
};

enum Type : uint32_t { text_type = 8, array_type = 9 };
constexpr std::array<uint8_t, 13> sizes{1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};  // by type; 0: not fixed

bool skip_value(Head& head, uint32_t type) {
    if (type < sizes.size() && sizes[type] > 0) return head.skip(sizes[type]);
    if (type == text_type) {
        const auto size = head.number<uint64_t>();
        return size && head.skip(*size);
    }
    if (type != array_type) return false;
    const auto of = head.number<uint32_t>();
    const auto count = head.number<uint64_t>();
    if (!of || !count || *of == array_type) return false;
    if (*of < sizes.size() && sizes[*of] > 0) return *count <= gguf_head_bytes_max && head.skip(*count * sizes[*of]);
    for (uint64_t i = 0; i < *count; ++i) {
        if (!skip_value(head, *of)) return false;
    }
    return true;
}

}  // namespace

Result<GgufFacts> read_gguf(const std::filesystem::path& path) {
    const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "rbe"), std::fclose);
    if (!file) return fail_errno(Kind::invalid, fmt::format("{} cannot be read", path.string()));
    Head head(file.get());
    const auto magic = head.number<uint32_t>(), version = head.number<uint32_t>();
    constexpr uint32_t gguf = 0x46554747;
    if (!magic || *magic != gguf || !version || *version < 2 || *version > 3) return fail(Kind::invalid, "{} is no GGUF file of version 2 or 3", path.string());
    const auto tensors = head.number<uint64_t>(), count = head.number<uint64_t>();
    GgufFacts facts;
    if (!tensors || !count) return facts;
    constexpr size_t name_max = 65'535;
    for (uint64_t i = 0; i < *count; ++i) {
        const auto name = head.text(name_max);
        const auto type = head.number<uint32_t>();
        if (!name || !type) return facts;
        if (*name == "tokenizer.chat_template" && *type == text_type) {
            const auto text = head.text(template_bytes_max);
            if (!text) return facts;
            facts.chat_template = *text;
        } else if (name->ends_with(".context_length") && sizes[std::min<size_t>(*type, 12)] == 4) {
            facts.context_tokens = head.number<uint32_t>().value_or(0);
        } else if (!skip_value(head, *type)) {
            return facts;
        }
    }
    return facts;
}

}  // namespace torpor::llm
