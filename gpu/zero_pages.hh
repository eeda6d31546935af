// Takes pages that hold nothing but zeros out of a CRIU image.
#pragma once

#include "base/error.hh"

#include <cstdint>
#include <filesystem>

namespace torpor::gpu {

// Rewrites the image's page lists and packs its page files in place; returns the bytes saved. An image whose format
// is not the known one is left as it is (0). After an error the image is broken: throw it away. Takes as long as
// reading the image once; any thread.
Result<uint64_t> drop_zero_pages(const std::filesystem::path& image);

}  // namespace torpor::gpu
