#include "daemon/config.hh"
#include "gpu/disk_room.hh"

#include "temporary_folder.hh"

#include <doctest/doctest.h>

using namespace torpor;
using gpu::choose_for_disk;
using gpu::DiskImage;

using Names = std::vector<std::string>;

namespace {

constexpr uint64_t gb = 1'000'000'000;

// 1 GB, saves ten seconds, wanted within the hour.
DiskImage image(std::string model) {
    return {std::move(model), gb, 10, 3600, false};
}

}  // namespace

TEST_CASE("with room enough no image goes") {
    const auto choice = choose_for_disk(gb, 3 * gb, {image("a"), image("b")});
    CHECK(choice.fits);
    CHECK(choice.to_go.empty());
}

TEST_CASE("what saves little, is wanted late or takes much goes first, and no more than must") {
    DiskImage slow = image("slow"), seldom = image("seldom"), large = image("large");
    slow.saved_s = 1;
    seldom.next_use_s = 7 * 24 * 3600;
    large.bytes = 5 * gb;
    CHECK(choose_for_disk(gb, 2 * gb, {image("a"), slow}).to_go == Names{"slow"});
    CHECK(choose_for_disk(gb, 2 * gb, {seldom, image("a")}).to_go == Names{"seldom"});
    CHECK(choose_for_disk(gb, 6 * gb, {image("a"), large}).to_go == Names{"large"});
    CHECK(choose_for_disk(gb, 3 * gb, {image("a"), slow, seldom, large}).to_go == Names{"seldom", "slow", "large"});
}

TEST_CASE("a pinned model's image goes last, but goes") {
    DiskImage pinned = image("pinned");
    pinned.is_pinned = true;
    pinned.next_use_s = 1e9;
    CHECK(choose_for_disk(gb, 2 * gb, {pinned, image("a")}).to_go == Names{"a"});
    CHECK(choose_for_disk(gb, gb, {pinned, image("a")}).to_go == Names{"a", "pinned"});
}

TEST_CASE("what can never fit makes nothing go") {
    const auto choice = choose_for_disk(3 * gb, 2 * gb, {image("a")});
    CHECK(!choice.fits);
    CHECK(choice.to_go.empty());
    CHECK(choose_for_disk(2 * gb, 2 * gb, {image("a")}).to_go == Names{"a"});
    CHECK(choose_for_disk(0, 0, {}).fits);
}

TEST_CASE("images without size or time do not upset the choice") {
    DiskImage nothing;
    nothing.model = "nothing";
    nothing.next_use_s = 1;
    CHECK(choose_for_disk(gb, gb, {nothing, image("a")}).to_go == Names{"nothing", "a"});
}

TEST_CASE("a model is wanted as often as it was, and not sooner than it was unused") {
    CHECK(gpu::guess_next_use(3600, 10, 5) == doctest::Approx(360));
    CHECK(gpu::guess_next_use(3600, 10, 1800) == doctest::Approx(1800));
    CHECK(gpu::guess_next_use(0, 0, 0) == doctest::Approx(1));  // just seen: no division by nothing
}

TEST_CASE("with nothing said images leave a share of the disk free") {
    const gpu::DiskSpace small{100 * gb, 30 * gb}, large{4000 * gb, 500 * gb}, full{100 * gb, 5 * gb};
    CHECK(gpu::disk_budget({}, small, 0) == 20 * gb);
    CHECK(gpu::disk_budget({}, small, 7 * gb) == 27 * gb);  // what they take already is theirs
    CHECK(gpu::disk_budget({}, large, 0) == 480 * gb);      // a tenth would be too much
    CHECK(gpu::disk_budget({}, full, 0) == 0);
    CHECK(gpu::disk_budget(3 * gb, full, 0) == 3 * gb);
    const TemporaryFolder folder;
    const auto space = gpu::measure_disk(folder / "");
    REQUIRE(space);
    CHECK(space->total >= space->free);
    CHECK(!gpu::measure_disk(folder / "nowhere"));
}

TEST_CASE("the budget in config.toml is a size or auto") {
    const auto disk = [](const std::string& value) { return parse_config("[pool]\ndisk = " + value, "config.toml"); };
    CHECK(disk("\"20GiB\"")->disk_budget == 20ULL * 1024 * 1024 * 1024);
    CHECK(disk("1000000")->disk_budget == 1'000'000);
    CHECK(!disk("\"auto\"")->disk_budget);
    CHECK(!parse_config("", "config.toml")->disk_budget);
    CHECK(disk("\"lots\"").error().message.find("config.toml:2: disk: ") == 0);
    CHECK(disk("\"lots\"").error().message.find("nor \"auto\"") != std::string::npos);
    CHECK(disk("0").error().message.find("snapshot = \"off\"") != std::string::npos);
}
