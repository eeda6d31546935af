#include "gpu/shared_files.hh"
#include "gpu/snapshot.hh"

#include "temporary_folder.hh"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>

using namespace torpor;
using gpu::Snapshot;

namespace {

void write(const std::filesystem::path& file, std::string_view text) {
    std::ofstream(file, std::ios::trunc) << text;
}

// A snapshot that says of this very process what would be said of a worker; `weights` is mapped.
struct Frozen {
    TemporaryFolder folder;
    std::filesystem::path weights = folder / "weights.gguf";
    std::filesystem::path adapter = folder / "adapter.gguf";  // read, not mapped
    std::filesystem::path criu = folder / "criu";
    std::vector<std::string> command{"/usr/bin/engine", "--model", "two words", "100%\n"};
    Snapshot snapshot;

    Frozen() {
        write(weights, "weights");
        write(adapter, "adapter");
        write(criu, "criu");
        std::filesystem::create_directories(folder / "snap/image");
        write(folder / "snap/image/pages-1.img", "pages");
        const int fd = ::open(weights.c_str(), O_RDONLY | O_CLOEXEC);
        void* mapped = ::mmap(nullptr, 7, PROT_READ, MAP_PRIVATE, fd, 0);
        ::close(fd);
        REQUIRE(mapped != MAP_FAILED);
        snapshot.path = folder / "snap";
        snapshot.bytes = gpu::bytes_below(folder / "snap/image");
        gpu::Model model;
        model.path = weights;
        model.adapters.push_back({"french", adapter});
        snapshot.fingerprint = gpu::take_fingerprint(::getpid(), model, command, criu);
        ::munmap(mapped, 7);
    }

    std::string why() const { return gpu::why_void(snapshot, command, criu).value_or("valid"); }

    // As if the fact had been another one when the image was made.
    void change(std::string_view line_start) {
        const size_t at = snapshot.fingerprint.find("\n" + std::string(line_start));
        REQUIRE(at != std::string::npos);
        snapshot.fingerprint.insert(snapshot.fingerprint.find('\n', at + 1), "x");
    }
};

}  // namespace

TEST_CASE("it depends on the weights though nobody has them mapped, be they a file or a folder") {
    Frozen frozen;
    const auto folder = frozen.folder / "model";
    std::filesystem::create_directories(folder / "part");
    std::filesystem::create_directories(folder / ".git");
    for (const char* name : {"a", "part/b", ".git/c"}) write(folder / name, "x");
    gpu::Model model;
    for (const auto& place : {folder, folder / "a"}) {
        model.path = place;
        frozen.snapshot.fingerprint = gpu::take_fingerprint(::getpid(), model, frozen.command, frozen.criu);
        CHECK(frozen.why() == "valid");
        CHECK(frozen.snapshot.fingerprint.find(".git/c") == std::string::npos);
    }
    write(folder / "part/b", "another");
    CHECK(frozen.why() == "valid");  // of the file beside it
    model.path = folder;
    frozen.snapshot.fingerprint = gpu::take_fingerprint(::getpid(), model, frozen.command, frozen.criu);
    write(folder / "part/b", "one more");
    CHECK(frozen.why() == (folder / "part/b").string() + " changed");
}

TEST_CASE("an engine's shared memory is kept and laid out as it was, and its holes stay holes") {
    TemporaryFolder folder;
    const std::string name = fmt::format("torpor-unit-{}", ::getpid());
    const std::filesystem::path shared = "/dev/shm/" + name;
    constexpr off_t size = 64 * 1024 * 1024;
    const int fd = ::open(shared.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    REQUIRE(fd >= 0);
    CHECK(::ftruncate(fd, size) == 0);
    CHECK(::pwrite(fd, "first", 5, 4096) == 5);
    CHECK(::pwrite(fd, "last", 4, size - 4096) == 4);
    const auto is_as_it_was = [size](const std::filesystem::path& file) {
        struct stat info{};
        REQUIRE(::stat(file.c_str(), &info) == 0);
        CHECK(info.st_size == size);
        CHECK(info.st_blocks * 512 < size / 16);
        std::ifstream in(file);
        std::string text(static_cast<size_t>(size), 'x');
        in.read(text.data(), size);
        CHECK(text.substr(4096, 5) == "first");
        CHECK(text.substr(size - 4096, 4) == "last");
        CHECK(static_cast<size_t>(std::count(text.begin(), text.end(), '\0')) == static_cast<size_t>(size) - 9);
    };
    CHECK(gpu::keep_shared_files(::getpid(), folder.path()));
    is_as_it_was(folder / ("shm-" + name));
    const auto taken = gpu::lay_out_shared_files(folder.path());
    CHECK((!taken && taken.error().kind == Kind::conflict));
    ::close(fd);
    gpu::remove_shared_files(folder.path());
    CHECK(!std::filesystem::exists(shared));
    CHECK(gpu::lay_out_shared_files(folder.path()));
    is_as_it_was(shared);
    gpu::remove_shared_files(folder.path());
}

TEST_CASE("a snapshot is valid while nothing changes") {
    const Frozen frozen;
    CHECK(frozen.why() == "valid");
    CHECK(frozen.snapshot.fingerprint.find(frozen.weights) != std::string::npos);
}

TEST_CASE("each fact that changed gives its own reason") {
    Frozen frozen;
    SUBCASE("arguments") {
        frozen.command.emplace_back("--more");
        CHECK(frozen.why() == "the engine's arguments changed");
    }
    SUBCASE("arguments that are split elsewhere") {
        frozen.command = {"/usr/bin/engine", "--model", "two", "words", "100%\n"};
        CHECK(frozen.why() == "the engine's arguments changed");
    }
    SUBCASE("kernel") {
        frozen.change("kernel ");
        CHECK(frozen.why() == "the kernel changed");
    }
    SUBCASE("processor") {
        frozen.change("cpu ");
        CHECK(frozen.why() == "the processor changed");
    }
    SUBCASE("CRIU") {
        write(frozen.criu, "a newer criu");
        CHECK(frozen.why() == "CRIU changed");
    }
    SUBCASE("a mapped file's size") {
        write(frozen.weights, "other weights");
        CHECK(frozen.why() == frozen.weights.string() + " changed");
    }
    SUBCASE("a mapped file's time") {
        const timespec times[2] = {{1, 0}, {1, 0}};
        REQUIRE(::utimensat(AT_FDCWD, frozen.weights.c_str(), times, 0) == 0);
        CHECK(frozen.why() == frozen.weights.string() + " changed");
    }
    SUBCASE("a mapped file that is gone") {
        std::filesystem::remove(frozen.weights);
        CHECK(frozen.why() == frozen.weights.string() + " changed");
    }
    SUBCASE("an adapter that is read, not mapped") {
        write(frozen.adapter, "another adapter");
        CHECK(frozen.why() == frozen.adapter.string() + " changed");
    }
    SUBCASE("a truncated image") {
        write(frozen.folder / "snap/image/pages-1.img", "page");
        CHECK(frozen.why() == "its files do not have the size they had");
    }
    SUBCASE("no image") {
        std::filesystem::remove_all(frozen.folder / "snap");
        CHECK(frozen.why() == "its folder is gone");
    }
}

TEST_CASE("an image is published whole, private, and in the place of an older one") {
    TemporaryFolder folder;
    const auto place = folder / "m", beside = folder / "m.new";
    std::filesystem::create_directories(place / "image");
    write(place / "image/old.img", "old");
    std::filesystem::create_directories(beside / "image");
    write(beside / "image/new.img", "new");
    ::chmod((beside / "image/new.img").c_str(), 0644);
    REQUIRE(gpu::publish(beside, place, "pid 1\n"));
    CHECK(!std::filesystem::exists(beside));
    CHECK(!std::filesystem::exists(place / "image/old.img"));
    CHECK(gpu::bytes_below(place / "image") == 3);
    CHECK(std::filesystem::file_size(place / "fingerprint") == 6);
    for (const auto& entry : std::filesystem::recursive_directory_iterator(place)) {
        struct stat info{};
        REQUIRE(::stat(entry.path().c_str(), &info) == 0);
        CHECK_MESSAGE((info.st_mode & 0077) == 0, entry.path().string());
    }
}

TEST_CASE("a clock that is behind the one of the image is unfit, one that is ahead is not") {
    const Frozen frozen;
    const int64_t then_s = std::atoll(gpu::fact_in(frozen.snapshot.fingerprint, "clock").c_str());
    REQUIRE(then_s > 0);
    constexpr int64_t days_30 = 30 * 24 * 3600;
    CHECK(!gpu::why_clock_unfit(frozen.snapshot.fingerprint, then_s));
    CHECK(!gpu::why_clock_unfit(frozen.snapshot.fingerprint, then_s + days_30));
    CHECK(gpu::why_clock_unfit(frozen.snapshot.fingerprint, then_s - days_30).value_or("").starts_with("the machine was started anew"));
    CHECK(!gpu::why_clock_unfit("pid 4711\ntoken 5f0c\n", 0));  // an older one, which does not say
}

TEST_CASE("images lie in a folder of our own that nobody else may enter") {
    const TemporaryFolder folder;
    const auto cache = folder / "cache", place = cache / "snapshots";
    const auto why = [&] {
        const auto checked = gpu::check_cache_folder(cache, place);
        return checked ? std::string("fine") : checked.error().text();
    };
    CHECK(why() == "fine");  // it was made
    CHECK((std::filesystem::status(place).permissions() & std::filesystem::perms::all) == std::filesystem::perms::owner_all);
    CHECK(why() == "fine");

    for (const auto& each : {place, cache}) {
        REQUIRE(::chmod(each.c_str(), 0770) == 0);
        CHECK(why().find(each.string() + " is open to others") == 0);
        REQUIRE(::chmod(each.c_str(), 0700) == 0);
    }
    REQUIRE(::chmod(place.c_str(), 0755) == 0);
    CHECK(why().find(place.string() + " is open to others") == 0);
    REQUIRE(::chmod(place.c_str(), 0700) == 0);
    REQUIRE(::chmod(cache.c_str(), 0755) == 0);  // nobody gets further than this
    CHECK(why() == "fine");
    if (::geteuid() == 0) {
        REQUIRE(::chown(place.c_str(), 12345, 12345) == 0);
        CHECK(why().find("belongs to another user (uid 12345)") != std::string::npos);
        REQUIRE(::chown(place.c_str(), 0, 0) == 0);
    }
    std::filesystem::rename(place, folder / "elsewhere");
    std::filesystem::create_symlink(folder / "elsewhere", place);
    CHECK(why().find("is a symbolic link") != std::string::npos);
    std::filesystem::remove(place);
    write(place, "");
    CHECK(why().find("is not a folder") != std::string::npos);
}
