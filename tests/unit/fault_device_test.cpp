#include "store/device/fault_device.hpp"

#include <rapidcheck.h>

#include <algorithm>
#include <atomic>
#include <catch2/catch.hpp>
#include <map>
#include <set>
#include <thread>
#include <tuple>
#include <vector>

#include "base/aligned_buffer.hpp"

namespace odx {
namespace {

constexpr std::size_t kSector = 512;
constexpr std::size_t kSectorsPerBlock = kBlockBytes / kSector;

Result<void> write_fill(BlockDevice& device, std::uint64_t first, std::uint64_t count,
                        unsigned char fill) {
  AlignedBuffer buffer(count * kBlockBytes);
  std::fill(buffer.span().begin(), buffer.span().end(), std::byte{fill});
  const BlockWrite write{{BlockNo(first), count}, buffer.data()};
  return device.write({&write, 1});
}

std::vector<std::byte> read_blocks(BlockDevice& device, std::uint64_t first, std::uint64_t count) {
  std::vector<std::byte> bytes(count * kBlockBytes, std::byte{0xEE});
  const BlockRead read{{BlockNo(first), count}, bytes.data()};
  REQUIRE(device.read({&read, 1}));
  return bytes;
}

// The byte that each sector of these blocks is full of; fails if a sector is not uniform.
std::vector<int> sector_fills(BlockDevice& device, std::uint64_t first, std::uint64_t count) {
  const std::vector<std::byte> bytes = read_blocks(device, first, count);
  std::vector<int> fills;
  for (std::size_t at = 0; at < bytes.size(); at += kSector) {
    REQUIRE(std::all_of(&bytes[at], &bytes[at] + kSector,
                        [&](std::byte byte) { return byte == bytes[at]; }));
    fills.push_back(static_cast<int>(bytes[at]));
  }
  return fills;
}

std::vector<int> all(int fill, std::size_t blocks) {
  return std::vector<int>(blocks * kSectorsPerBlock, fill);
}

TEST_CASE("what is written is read, the rest is zeros") {
  FaultDevice device;
  CHECK(device.blocks() == 0);
  REQUIRE(device.add_segment(100));
  CHECK(device.blocks() == 100);
  REQUIRE(write_fill(device, 10, 3, 7));
  CHECK(sector_fills(device, 10, 3) == all(7, 3));
  CHECK(sector_fills(device, 9, 1) == all(0, 1));
  CHECK(sector_fills(device, 13, 1) == all(0, 1));
  REQUIRE(device.sync());
  CHECK(device.unsynced_writes() == 0);
  REQUIRE(write_fill(device, 11, 1, 8));
  CHECK(device.unsynced_writes() == 1);
  CHECK(sector_fills(device, 11, 1) == all(8, 1));
  CHECK(sector_fills(device, 12, 1) == all(7, 1));
}

TEST_CASE("blocks outside are refused") {
  FaultDevice device;
  REQUIRE(device.add_segment(100));
  CHECK(write_fill(device, 99, 2, 1).error().errno_value() == EIO);
  CHECK(sector_fills(device, 99, 1) == all(0, 1));
  std::vector<std::byte> bytes(2 * kBlockBytes);
  for (const BlockRun& run :
       {BlockRun{BlockNo(99), 2}, BlockRun{BlockNo(100), 1}, BlockRun{BlockNo(UINT64_MAX), 2}}) {
    const BlockRead read{run, bytes.data()};
    CHECK(device.read({&read, 1}).error().errno_value() == EIO);
  }
}

TEST_CASE("segments follow the rules of the real device") {
  FaultDevice device(0, (kSegmentBlocks + 100) * kBlockBytes);
  CHECK(device.add_segment(0).error().errno_value() == EINVAL);
  CHECK(device.add_segment(kSegmentBlocks + 1).error().errno_value() == EINVAL);
  REQUIRE(device.add_segment(kSegmentBlocks));
  CHECK(device.host_free_bytes() == 100 * kBlockBytes);
  CHECK(device.add_segment(101).error().errno_value() == ENOSPC);
  REQUIRE(device.add_segment(100));
  CHECK(device.add_segment(1).error().errno_value() == EINVAL);
  CHECK(device.blocks() == kSegmentBlocks + 100);
  REQUIRE(write_fill(device, kSegmentBlocks - 1, 2, 3));
  CHECK(sector_fills(device, kSegmentBlocks - 1, 2) == all(3, 2));
}

TEST_CASE("a crash keeps what was synced") {
  FaultDevice device;
  REQUIRE(device.add_segment(100));
  REQUIRE(write_fill(device, 0, 4, 1));
  REQUIRE(device.sync());
  REQUIRE(write_fill(device, 50, 1, 2));
  device.crash(1);
  CHECK(sector_fills(device, 0, 4) == all(1, 4));
  CHECK(device.blocks() == 100);
  CHECK(device.unsynced_writes() == 0);
}

TEST_CASE("crashes show every kind of outcome") {
  FaultDevice device;
  REQUIRE(device.add_segment(100));
  REQUIRE(write_fill(device, 0, 4, 1));
  REQUIRE(device.sync());
  REQUIRE(write_fill(device, 0, 4, 2));
  REQUIRE(write_fill(device, 2, 4, 3));
  int none = 0;
  int whole = 0;
  int first_lost = 0;
  int overtaken = 0;
  int torn_at_sector = 0;
  int torn_at_block = 0;
  for (std::uint64_t seed = 0; seed < 1000; ++seed) {
    const auto crashed = device.crashed_copy(seed);
    const std::vector<int> fills = sector_fills(*crashed, 0, 6);
    const std::set<int> head(fills.begin(), fills.begin() + 2 * kSectorsPerBlock);
    const std::vector<int> middle(fills.begin() + 2 * kSectorsPerBlock,
                                  fills.begin() + 4 * kSectorsPerBlock);
    const std::vector<int> tail(fills.begin() + 4 * kSectorsPerBlock, fills.end());
    for (const int fill : head) {
      REQUIRE((fill == 1 || fill == 2));
    }
    for (const int fill : middle) {
      REQUIRE((fill == 1 || fill == 2 || fill == 3));
    }
    for (const int fill : tail) {
      REQUIRE((fill == 0 || fill == 3));
    }
    none += head == std::set{1} && middle == all(1, 2) && tail == all(0, 2);
    whole += head == std::set{2} && middle == all(3, 2) && tail == all(3, 2);
    first_lost += head == std::set{1} && middle == all(3, 2) && tail == all(3, 2);
    overtaken += head == std::set{2} && middle == all(2, 2) && tail == all(3, 2);
    torn_at_block += tail != all(3, 2) && std::count(tail.begin(), tail.end(), 3) == 8;
    torn_at_sector += tail[0] != tail[1];
  }
  CHECK(none > 20);
  CHECK(whole > 20);
  CHECK(first_lost > 20);
  CHECK(overtaken > 20);
  CHECK(torn_at_sector > 20);
  CHECK(torn_at_block > 20);
}

TEST_CASE("a crash is a function of its seed") {
  const auto prepare = [] {
    auto device = std::make_unique<FaultDevice>(3);
    REQUIRE(device->add_segment(200));
    for (std::uint64_t i = 0; i < 40; ++i) {
      REQUIRE(write_fill(*device, (i * 37) % 190, 1 + i % 9, static_cast<unsigned char>(i + 1)));
    }
    device->arm({.op = FaultOp::kWrite});
    REQUIRE_FALSE(write_fill(*device, 100, 9, 99));
    return device;
  };
  const auto one = prepare();
  const auto two = prepare();
  const auto copy = one->crashed_copy(77);
  const auto other = one->crashed_copy(78);
  CHECK(read_blocks(*one, 0, 200) == read_blocks(*two, 0, 200));
  one->crash(77);
  two->crash(77);
  CHECK(read_blocks(*one, 0, 200) == read_blocks(*two, 0, 200));
  CHECK(read_blocks(*one, 0, 200) == read_blocks(*copy, 0, 200));
  CHECK(read_blocks(*one, 0, 200) != read_blocks(*other, 0, 200));
}

TEST_CASE("the nth call fails") {
  FaultDevice device;
  REQUIRE(device.add_segment(10));
  std::vector<std::byte> bytes(kBlockBytes);
  const BlockRead read{{BlockNo(0), 1}, bytes.data()};

  SECTION("read") {
    device.arm({.op = FaultOp::kRead, .nth = 3});
    CHECK(device.read({&read, 1}));
    CHECK(write_fill(device, 0, 1, 1));
    CHECK(device.read({&read, 1}));
    CHECK(device.read({&read, 1}).error().errno_value() == EIO);
    CHECK(device.read({&read, 1}));
    CHECK(device.calls(FaultOp::kRead) == 4);
    CHECK(device.calls(FaultOp::kWrite) == 1);
  }
  SECTION("read, for ever") {
    device.arm({.op = FaultOp::kRead, .nth = 2, .forever = true});
    CHECK(device.read({&read, 1}));
    CHECK_FALSE(device.read({&read, 1}));
    CHECK_FALSE(device.read({&read, 1}));
    device.disarm();
    CHECK(device.read({&read, 1}));
  }
  SECTION("write, with a chosen errno") {
    device.arm({.op = FaultOp::kWrite, .nth = 2, .errno_value = ENOSPC});
    CHECK(write_fill(device, 0, 1, 1));
    CHECK(write_fill(device, 0, 1, 2).error().errno_value() == ENOSPC);
    CHECK(write_fill(device, 0, 1, 3));
    CHECK(sector_fills(device, 0, 1) == all(3, 1));
  }
  SECTION("sync, and all that follow, until a crash") {
    REQUIRE(write_fill(device, 0, 1, 1));
    REQUIRE(device.sync());
    REQUIRE(write_fill(device, 0, 1, 2));
    device.arm({.op = FaultOp::kSync, .errno_value = ENOSPC});
    CHECK(device.sync().error().errno_value() == ENOSPC);
    device.disarm();
    CHECK(device.sync().error().errno_value() == ENOSPC);
    CHECK(sector_fills(device, 0, 1) == all(2, 1));
    std::set<int> survivors;
    for (std::uint64_t seed = 0; seed < 100; ++seed) {
      survivors.insert(sector_fills(*device.crashed_copy(seed), 0, 1)[0]);
    }
    CHECK(survivors == std::set{1, 2});
    device.crash(0);
    CHECK(device.sync());
  }
  SECTION("add_segment") {
    FaultDevice empty;
    empty.arm({.op = FaultOp::kAddSegment, .errno_value = ENOSPC});
    CHECK(empty.add_segment(10).error().errno_value() == ENOSPC);
    CHECK(empty.blocks() == 0);
    CHECK(empty.add_segment(10));
  }
}

TEST_CASE("a failed write leaves a part of itself") {
  std::set<int> seen;
  bool mixed = false;
  for (std::uint64_t seed = 0; seed < 50; ++seed) {
    FaultDevice device(seed);
    REQUIRE(device.add_segment(10));
    REQUIRE(write_fill(device, 0, 2, 1));
    REQUIRE(device.sync());
    device.arm({.op = FaultOp::kWrite});
    REQUIRE_FALSE(write_fill(device, 0, 2, 2));
    const std::vector<int> fills = sector_fills(device, 0, 2);
    const std::set<int> different(fills.begin(), fills.end());
    mixed |= different.size() == 2;
    seen.insert(different.begin(), different.end());
  }
  CHECK(mixed);
  CHECK(seen == std::set{1, 2});
}

TEST_CASE("after the power is cut nothing works until the restart") {
  FaultDevice device(5);
  REQUIRE(device.add_segment(10));
  REQUIRE(write_fill(device, 0, 1, 1));
  REQUIRE(device.sync());
  device.cut_power_after(2);
  CHECK(write_fill(device, 1, 1, 2));
  CHECK(device.sync());
  CHECK(sector_fills(device, 1, 1) == all(2, 1));
  CHECK(write_fill(device, 2, 4, 3).error().errno_value() == EIO);
  const std::size_t in_cache = device.unsynced_writes();
  CHECK(write_fill(device, 3, 1, 4).error().errno_value() == EIO);
  CHECK(device.sync().error().errno_value() == EIO);
  CHECK(device.add_segment(10).error().errno_value() != 0);
  const std::vector<BlockRun> runs{{BlockNo(0), 1}};
  device.discard(runs);
  CHECK(device.unsynced_writes() == in_cache);
  std::vector<std::byte> bytes(kBlockBytes);
  const BlockRead read{{BlockNo(0), 1}, bytes.data()};
  CHECK(device.read({&read, 1}).error().errno_value() == EIO);
  device.disarm();
  CHECK(device.read({&read, 1}).error().errno_value() == EIO);

  device.crash(9);
  CHECK(sector_fills(device, 0, 1) == all(1, 1));
  CHECK(sector_fills(device, 1, 1) == all(2, 1));
  CHECK(write_fill(device, 3, 1, 4));
  CHECK(device.sync());
}

TEST_CASE("bits flip where they are asked to") {
  FaultDevice device;
  REQUIRE(device.add_segment(10));
  REQUIRE(write_fill(device, 0, 3, 0x11));
  SECTION("on the medium") { REQUIRE(device.sync()); }
  SECTION("in the cache, and from there on the medium") {}
  device.corrupt(BlockNo(1), 4095, std::byte{0x81});
  const std::vector<std::byte> bytes = read_blocks(device, 0, 3);
  CHECK(bytes[2 * kBlockBytes - 1] == std::byte{0x90});
  CHECK(std::count(bytes.begin(), bytes.end(), std::byte{0x11}) == 3 * kBlockBytes - 1);
  REQUIRE(device.sync());
  device.crash(0);
  CHECK(read_blocks(device, 0, 3) == bytes);
  device.corrupt(BlockNo(5), 0, std::byte{1});
  CHECK(read_blocks(device, 5, 1)[0] == std::byte{1});
}

TEST_CASE("discarded blocks read as garbage, now or after a crash") {
  FaultDevice device;
  REQUIRE(device.add_segment(10));
  REQUIRE(write_fill(device, 0, 3, 1));
  REQUIRE(device.sync());
  const std::vector<BlockRun> runs{{BlockNo(1), 1}, {BlockNo(5), 2}, {BlockNo(9), 2}};
  device.discard(runs);
  CHECK(sector_fills(device, 0, 1) == all(1, 1));
  CHECK(sector_fills(device, 2, 1) == all(1, 1));
  CHECK(sector_fills(device, 1, 1)[0] > 1);
  std::set<bool> is_old;
  for (std::uint64_t seed = 0; seed < 100; ++seed) {
    is_old.insert(sector_fills(*device.crashed_copy(seed), 1, 1) == all(1, 1));
  }
  CHECK(is_old.size() == 2);
}

TEST_CASE("a handle is the device") {
  FaultDevice device;
  {
    const std::unique_ptr<BlockDevice> handle = device.handle();
    REQUIRE(handle->add_segment(10));
    REQUIRE(write_fill(*handle, 0, 1, 1));
    REQUIRE(handle->sync());
    REQUIRE(write_fill(*handle, 1, 1, 2));
    CHECK(handle->blocks() == 10);
    CHECK(handle->host_free_bytes() == device.host_free_bytes());
    CHECK(sector_fills(*handle, 0, 1) == all(1, 1));
  }
  CHECK(device.unsynced_writes() == 1);
  CHECK(sector_fills(device, 1, 1) == all(2, 1));
}

// After any history, a sector holds its last synced fill or one written since.
TEST_CASE("crashes leave only what was written") {
  constexpr std::uint64_t kBlocks = 12;
  using Step = std::tuple<std::uint8_t, std::uint8_t, std::uint8_t>;
  CHECK(rc::check("random histories", [](const std::vector<Step>& steps, std::uint64_t seed) {
    FaultDevice device(seed);
    RC_ASSERT(device.add_segment(kBlocks).has_value());
    std::vector<int> now(kBlocks, 0);
    std::vector<std::set<int>> possible(kBlocks, std::set{0});
    int fill = 0;
    for (const auto& [what, where, length] : steps) {
      const std::uint64_t first = where % kBlocks;
      const std::uint64_t count = std::min<std::uint64_t>(1 + length % 4, kBlocks - first);
      if (what % 8 == 0) {
        RC_ASSERT(device.sync().has_value());
        for (std::uint64_t block = 0; block < kBlocks; ++block) {
          possible[block] = {now[block]};
        }
      } else {
        fill = fill % 200 + 1;
        RC_ASSERT(write_fill(device, first, count, static_cast<unsigned char>(fill)).has_value());
        for (std::uint64_t block = first; block < first + count; ++block) {
          now[block] = fill;
          possible[block].insert(fill);
        }
      }
    }
    for (std::uint64_t block = 0; block < kBlocks; ++block) {
      RC_ASSERT(sector_fills(device, block, 1) == all(now[block], 1));
    }
    device.crash(seed);
    for (std::uint64_t block = 0; block < kBlocks; ++block) {
      for (const int left : sector_fills(device, block, 1)) {
        RC_ASSERT(possible[block].contains(left));
      }
    }
  }));
}

TEST_CASE("threads may use it at once") {
  FaultDevice device;
  REQUIRE(device.add_segment(64));
  std::atomic<int> failures = 0;
  std::vector<std::thread> threads;
  for (unsigned id = 0; id < 4; ++id) {
    threads.emplace_back([&, id] {
      AlignedBuffer buffer(kBlockBytes);
      for (unsigned round = 0; round < 200; ++round) {
        const BlockRun run{BlockNo(id * 16 + round % 16), 1};
        std::fill(buffer.span().begin(), buffer.span().end(), static_cast<std::byte>(round));
        const BlockWrite write{run, buffer.data()};
        failures += !device.write({&write, 1});
        failures += !device.sync();
        std::fill(buffer.span().begin(), buffer.span().end(), std::byte{0xFF});
        const BlockRead read{run, buffer.data()};
        failures += !device.read({&read, 1});
        failures += buffer.data()[100] != static_cast<std::byte>(round);
        (void)device.unsynced_writes();
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  CHECK(failures == 0);
}

}  // namespace
}  // namespace odx
