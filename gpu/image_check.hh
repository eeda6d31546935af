// Checksums of an image's files, so that what a disk made of it is found before anybody gets an answer from it.
//
// In the fingerprint, one line a file: "image HASH SIZE NAME", the hash being XXH3-128 (github.com/Cyan4973/xxHash)
// as 32 hex digits. It finds accidents; whoever can write the files is their owner or root anyway.
#pragma once

#include "base/error.hh"

#include <filesystem>
#include <optional>
#include <string>

namespace torpor::gpu {

// The lines, for all files in the folder. Reads them whole. Any thread.
Result<std::string> take_checksums(const std::filesystem::path& image);

// "HASH SIZE" of one file. Any thread.
Result<std::string> checksum_of(const std::filesystem::path& file);

// `lists`: what tells CRIU what to make, kilobytes; `pages`: the memory of the processes, shared or their own, nearly all of
// the image.
enum class ImagePart { lists, pages };

// What is not as the fingerprint says, in this part; nothing if all is well. Any thread.
std::optional<std::string> why_damaged(const std::filesystem::path& image, const std::string& fingerprint, ImagePart part);

}  // namespace torpor::gpu
