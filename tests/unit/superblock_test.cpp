// The superblock: the newest whole copy counts, whatever happened to the other one.
#include "store/superblock.hpp"

#include <catch2/catch.hpp>
#include <fstream>
#include <iterator>

#include "base/codec.hpp"
#include "base/crc32c.hpp"
#include "temp_dir.hpp"

namespace odx {
namespace {

constexpr std::size_t kVersionAt = 8;
constexpr std::size_t kIncompatAt = 56;
constexpr std::size_t kCrcAt = 4092;

Superblock example(std::uint64_t generation) {
  Superblock super;
  super.generation = generation;
  for (std::size_t i = 0; i < super.uuid.size(); ++i) {
    super.uuid[i] = static_cast<std::uint8_t>(i * 17);
  }
  super.label = "scratch";
  super.sector_bytes = 4096;
  super.limit_blocks = 123456789;
  super.compat = 0x8000000000000001;
  return super;
}

std::string slurp(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

void spill(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
}

// Changes a file and makes its checksum right again.
void forge(const std::string& path, std::size_t at, char value) {
  std::string image = slurp(path);
  image[at] = value;
  image.resize(kCrcAt);
  put_le(image, crc32c(image));
  spill(path, image);
}

std::uint64_t generation_of(const test::TempDir& dir) {
  const auto super = read_superblock(dir.path());
  REQUIRE(super);
  return super->generation;
}

TEST_CASE("a superblock survives a round trip") {
  const test::TempDir dir;
  const Superblock super = example(1);
  REQUIRE(write_superblock(dir.path(), super));
  const auto read = read_superblock(dir.path());
  REQUIRE(read);
  REQUIRE(read->generation == super.generation);
  REQUIRE(read->uuid == super.uuid);
  REQUIRE(read->label == super.label);
  REQUIRE(read->sector_bytes == super.sector_bytes);
  REQUIRE(read->limit_blocks == super.limit_blocks);
  REQUIRE(read->compat == super.compat);
  REQUIRE(read->ro_compat == 0);
  REQUIRE(read->incompat == 0);
  REQUIRE(slurp(dir.file("SUPER.1")).size() == 4096);
}

TEST_CASE("copies are written in turn and the newest counts") {
  const test::TempDir dir;
  for (std::uint64_t generation = 1; generation <= 5; ++generation) {
    REQUIRE(write_superblock(dir.path(), example(generation)));
    REQUIRE(generation_of(dir) == generation);
  }
}

TEST_CASE("one damaged copy costs one generation at most") {
  const test::TempDir dir;
  REQUIRE(write_superblock(dir.path(), example(6)));
  REQUIRE(write_superblock(dir.path(), example(7)));
  const std::string newest = dir.file("SUPER.1");
  const std::string whole = slurp(newest);
  SECTION("any byte of it changed") {
    for (std::size_t at = 0; at < whole.size(); at += 13) {
      std::string image = whole;
      image[at] = static_cast<char>(image[at] ^ 0x10);
      spill(newest, image);
      REQUIRE(generation_of(dir) == 6);
    }
  }
  SECTION("too short") {
    for (const std::size_t size : {0UL, 7UL, 512UL, 4095UL}) {
      spill(newest, whole.substr(0, size));
      REQUIRE(generation_of(dir) == 6);
    }
  }
  SECTION("too long") {
    spill(newest, whole + "x");
    REQUIRE(generation_of(dir) == 6);
  }
  SECTION("gone") {
    std::filesystem::remove(newest);
    REQUIRE(generation_of(dir) == 6);
  }
  SECTION("the older one") {
    spill(dir.file("SUPER.0"), std::string(4096, '\0'));
    REQUIRE(generation_of(dir) == 7);
  }
  SECTION("a long file is cut when it is written again") {
    spill(newest, whole + "x");
    REQUIRE(write_superblock(dir.path(), example(9)));
    REQUIRE(generation_of(dir) == 9);
  }
}

TEST_CASE("no store, or nothing whole of one") {
  const test::TempDir dir;
  SECTION("no file") {
    const auto read = read_superblock(dir.path());
    REQUIRE_FALSE(read);
    REQUIRE(read.error().errno_value() == ENOENT);
  }
  SECTION("no directory") {
    const auto read = read_superblock(dir.file("nowhere"));
    REQUIRE_FALSE(read);
    REQUIRE(read.error().errno_value() == ENOENT);
  }
  SECTION("both damaged") {
    spill(dir.file("SUPER.0"), "junk");
    spill(dir.file("SUPER.1"), std::string(4096, 'j'));
    const auto read = read_superblock(dir.path());
    REQUIRE_FALSE(read);
    REQUIRE(read.error().is_corruption());
  }
  SECTION("one damaged, one missing") {
    spill(dir.file("SUPER.0"), "junk");
    const auto read = read_superblock(dir.path());
    REQUIRE_FALSE(read);
    REQUIRE(read.error().is_corruption());
  }
}

TEST_CASE("what a later version wrote is not touched") {
  const test::TempDir dir;
  REQUIRE(write_superblock(dir.path(), example(6)));
  REQUIRE(write_superblock(dir.path(), example(7)));
  SECTION("the newest copy has another version") {
    forge(dir.file("SUPER.1"), kVersionAt, 2);
    const auto read = read_superblock(dir.path());
    REQUIRE_FALSE(read);
    REQUIRE(read.error().errno_value() == ENOTSUP);
    REQUIRE(read.error().detail().find("version 2") != std::string::npos);
  }
  SECTION("the newest copy has an incompatible feature") {
    forge(dir.file("SUPER.1"), kIncompatAt, 0x40);
    const auto read = read_superblock(dir.path());
    REQUIRE_FALSE(read);
    REQUIRE(read.error().errno_value() == ENOTSUP);
    REQUIRE(read.error().detail().find("0x40") != std::string::npos);
  }
  SECTION("an older copy does not matter") {
    forge(dir.file("SUPER.0"), kVersionAt, 2);
    REQUIRE(generation_of(dir) == 7);
  }
  SECTION("a feature for readers only") {
    Superblock super = example(8);
    REQUIRE_FALSE(super.read_only_features());
    super.ro_compat = 2;
    REQUIRE(write_superblock(dir.path(), super));
    const auto read = read_superblock(dir.path());
    REQUIRE(read);
    REQUIRE(read->read_only_features());
  }
}

TEST_CASE("fields out of range are refused, and never believed") {
  const test::TempDir dir;
  Superblock super = example(1);
  SECTION("sector") {
    for (const std::uint32_t bytes : {0U, 256U, 513U, 8192U}) {
      super.sector_bytes = bytes;
      REQUIRE(write_superblock(dir.path(), super).error().errno_value() == EINVAL);
    }
  }
  SECTION("label") {
    super.label = std::string(32, 'x');
    REQUIRE(write_superblock(dir.path(), super).error().errno_value() == EINVAL);
    super.label = std::string("a\0b", 3);
    REQUIRE(write_superblock(dir.path(), super).error().errno_value() == EINVAL);
    super.label = std::string(31, 'x');
    REQUIRE(write_superblock(dir.path(), super));
    REQUIRE(read_superblock(dir.path())->label == super.label);
  }
  SECTION("limit") {
    super.limit_blocks = UINT64_MAX;
    REQUIRE(write_superblock(dir.path(), super).error().errno_value() == EINVAL);
  }
  SECTION("a forged sector size is corruption") {
    REQUIRE(write_superblock(dir.path(), super));
    forge(dir.file("SUPER.1"), 13, 0x11);
    const auto read = read_superblock(dir.path());
    REQUIRE_FALSE(read);
    REQUIRE(read.error().is_corruption());
  }
}

TEST_CASE("a directory that cannot be written is an error") {
  const test::TempDir dir;
  REQUIRE(write_superblock(dir.file("nowhere"), example(1)).error().errno_value() == ENOENT);
}

TEST_CASE("uuids look as people know them") {
  REQUIRE(to_text(example(1).uuid) == "00112233-4455-6677-8899-aabbccddeeff");
}

}  // namespace
}  // namespace odx
