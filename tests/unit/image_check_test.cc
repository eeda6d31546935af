#include "gpu/image_check.hh"

#include "base/fd.hh"
#include "tests/unit/temporary_folder.hh"

#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>
#include <random>

namespace {

using namespace torpor;
using gpu::ImagePart;

std::optional<std::string> damage(const std::filesystem::path& image, const std::string& sums) {
    auto found = gpu::why_damaged(image, sums, ImagePart::lists);
    return found ? found : gpu::why_damaged(image, sums, ImagePart::pages);
}

void flip(const std::filesystem::path& file, uint64_t bit) {
    std::fstream stream(file, std::ios::in | std::ios::out | std::ios::binary);
    stream.seekg(static_cast<std::streamoff>(bit / 8));
    const char byte = static_cast<char>(stream.get() ^ (1 << (bit % 8)));
    stream.seekp(static_cast<std::streamoff>(bit / 8));
    stream.put(byte);
}

}  // namespace

TEST_CASE("a flipped bit anywhere in an image is found") {
    TemporaryFolder folder;
    std::mt19937_64 random(20261125);
    const std::vector<std::pair<std::string, size_t>> files{
        {"core-1.img", 900}, {"empty.img", 0}, {"mm-1.img", 1}, {"pages-1.img", 3'000'000}, {"pages-2.img", 4096}};
    for (const auto& [name, size] : files) {
        std::string bytes(size, '\0');
        for (char& byte : bytes) byte = static_cast<char>(random());
        REQUIRE(write_file_atomically(folder / name, bytes, 0600));
    }
    const auto sums = gpu::take_checksums(folder.path());
    REQUIRE(sums);
    const std::string fingerprint = "pid 1\nfile 1 2 /image x\n" + *sums;
    REQUIRE(!damage(folder.path(), fingerprint));

    for (int i = 0; i < 100; ++i) {
        const auto& file = files[random() % files.size()];
        const std::string name = file.first;
        const size_t size = file.second;
        if (size == 0) continue;
        const uint64_t bit = random() % (size * 8);
        flip(folder / name, bit);
        CAPTURE(name);
        CAPTURE(bit);
        CHECK(damage(folder.path(), fingerprint) == name + " is not as it was written");
        flip(folder / name, bit);
    }
    CHECK(!damage(folder.path(), fingerprint));
}

TEST_CASE("an image with other files, or without checksums, is not trusted") {
    TemporaryFolder folder;
    REQUIRE(write_file_atomically(folder / "core-1.img", "core", 0600));
    REQUIRE(write_file_atomically(folder / "pages-1.img", "pages", 0600));
    const std::string sums = gpu::take_checksums(folder.path()).value();
    CHECK(damage(folder.path(), "pid 1\n") == "it has no checksums");
    REQUIRE(write_file_atomically(folder / "more.img", "", 0600));
    CHECK(damage(folder.path(), sums) == "more.img is none of its files");
    std::filesystem::remove(folder / "more.img");
    std::filesystem::resize_file(folder / "pages-1.img", 4);
    CHECK(!gpu::why_damaged(folder.path(), sums, ImagePart::lists));
    CHECK(gpu::why_damaged(folder.path(), sums, ImagePart::pages));
    std::filesystem::remove(folder / "pages-1.img");
    CHECK(gpu::why_damaged(folder.path(), sums, ImagePart::pages));
}
