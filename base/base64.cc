#include "base/base64.hh"

#include <openssl/evp.h>

namespace torpor {

std::string to_base64(std::string_view bytes) {
    std::string text((bytes.size() + 2) / 3 * 4 + 1, '\0');  // and the 0 that OpenSSL writes
    const int size = EVP_EncodeBlock(reinterpret_cast<unsigned char*>(text.data()), reinterpret_cast<const unsigned char*>(bytes.data()),
                                     static_cast<int>(bytes.size()));
    text.resize(static_cast<size_t>(size));
    return text;
}

Result<std::string> from_base64(std::string_view text) {
    while (text.ends_with('=')) text.remove_suffix(1);
    // OpenSSL overlooks what stands around the text and takes padding for zeros.
    constexpr std::string_view digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    if (text.size() % 4 == 1 || text.find_first_not_of(digits) != std::string_view::npos) return fail(Kind::invalid, "it is not base64");
    const size_t padding = (4 - text.size() % 4) % 4;
    const std::string padded = std::string(text) + std::string(padding, '=');
    std::string bytes(padded.size() / 4 * 3, '\0');
    const int size = EVP_DecodeBlock(reinterpret_cast<unsigned char*>(bytes.data()), reinterpret_cast<const unsigned char*>(padded.data()),
                                     static_cast<int>(padded.size()));
    if (size < 0) return fail(Kind::invalid, "it is not base64");
    bytes.resize(static_cast<size_t>(size) - padding);
    return bytes;
}

}  // namespace torpor
