#include "store/device/segment_device.hpp"

#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>
#include <set>
#include <thread>
#include <vector>

#include "device_world.hpp"

namespace odx {
namespace {

namespace fs = std::filesystem;
using namespace test;

const std::vector<SegmentDeviceOptions> kAllOptions = {
    {.mode = IoMode::kDirect, .engine = IoEngineKind::kUring},
    {.mode = IoMode::kDirect, .engine = IoEngineKind::kSync},
    {.mode = IoMode::kBuffered, .engine = IoEngineKind::kUring},
    {.mode = IoMode::kBuffered, .engine = IoEngineKind::kSync},
};

// A file system of this type at `target`, seen by this process only and gone with it.
bool mount_privately(const std::string& target, const char* type, const char* options) {
  return ::unshare(CLONE_NEWNS) == 0 &&
         ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
         ::mount("none", target.c_str(), type, 0, options) == 0;
}

TEST_CASE("an empty store grows, holds data, and is found again") {
  for (const SegmentDeviceOptions& options : kAllOptions) {
    const StoreDir dir;
    {
      const auto device = open_device(dir, options);
      CHECK(device->blocks() == 0);
      CHECK(device->sync());
      REQUIRE(device->add_segment(500));
      CHECK(device->blocks() == 500);
      CHECK(dir.names() == std::set<std::string>{"0000.seg"});
      CHECK(fs::file_size(dir.file("0000.seg")) == 500 * kBlockBytes);
      struct stat status {};
      REQUIRE(::stat(dir.file("0000.seg").c_str(), &status) == 0);
      CHECK(static_cast<std::uint64_t>(status.st_blocks) * 512 >= 500 * kBlockBytes);
      CHECK((status.st_mode & 0777) == 0600);
      REQUIRE(write_pattern(*device, run_of(3, 200), 1));
      REQUIRE(write_pattern(*device, run_of(100, 1), 2));
      CHECK(device->sync());
      CHECK(has_pattern(*device, run_of(3, 97), 1));
    }
    const auto device = open_device(dir, options);
    CHECK(device->blocks() == 500);
    CHECK(has_pattern(*device, run_of(3, 97), 1));
    CHECK(has_pattern(*device, run_of(100, 1), 2));
    CHECK(has_pattern(*device, run_of(101, 102), 1));
    CHECK(device->host_free_bytes() > 0);
  }
}

TEST_CASE("runs cross segments") {
  for (const SegmentDeviceOptions& options : kAllOptions) {
    const StoreDir dir;
    dir.make_sparse("0000.seg", kSegmentBlocks * kBlockBytes);
    dir.make_sparse("0001.seg", kSegmentBlocks * kBlockBytes);
    const auto device = open_device(dir, options);
    REQUIRE(device->add_segment(64));
    REQUIRE(device->blocks() == 2 * kSegmentBlocks + 64);
    const BlockRun first_seam = run_of(kSegmentBlocks - 5, 11);
    const BlockRun second_seam = run_of(2 * kSegmentBlocks - 1, 65);
    AlignedBuffer one(first_seam.count * kBlockBytes);
    AlignedBuffer two(second_seam.count * kBlockBytes);
    fill_pattern(one.data(), first_seam, 1);
    fill_pattern(two.data(), second_seam, 2);
    REQUIRE(device->write(
        std::array{BlockWrite{first_seam, one.data()}, BlockWrite{second_seam, two.data()}}));
    REQUIRE(device->sync());
    CHECK(has_pattern(*device, first_seam, 1));
    CHECK(has_pattern(*device, second_seam, 2));
    CHECK(has_pattern(*device, run_of(kSegmentBlocks, 1), 1));
    // And they are where they belong.
    const auto reopened = open_device(dir, options);
    CHECK(has_pattern(*reopened, first_seam, 1));
    CHECK(has_pattern(*reopened, run_of(2 * kSegmentBlocks, 64), 2));
  }
}

TEST_CASE("batches may be larger than a ring") {
  for (const SegmentDeviceOptions& options : kAllOptions) {
    const StoreDir dir;
    const auto device = open_device(dir, options);
    REQUIRE(device->add_segment(3000));
    std::vector<BlockRun> runs;
    std::uint64_t total = 0;
    for (std::uint64_t i = 0; i < 200; ++i) {
      runs.push_back(run_of((i * 1237) % 200 * 15, 1 + i % 5));
      total += runs.back().count;
    }
    AlignedBuffer buffer(total * kBlockBytes);
    std::vector<BlockWrite> writes;
    std::byte* at = buffer.data();
    for (const BlockRun& run : runs) {
      fill_pattern(at, run, 1);
      writes.push_back({run, at});
      at += run.count * kBlockBytes;
    }
    REQUIRE(device->write(writes));
    AlignedBuffer found(total * kBlockBytes);
    std::vector<BlockRead> reads;
    at = found.data();
    for (const BlockRun& run : runs) {
      reads.push_back({run, at});
      at += run.count * kBlockBytes;
    }
    REQUIRE(device->read(reads));
    CHECK(std::memcmp(buffer.data(), found.data(), buffer.size()) == 0);
    CHECK(device->read({}));
    CHECK(device->write({}));
  }
}

TEST_CASE("what lies behind the end is EIO") {
  for (const SegmentDeviceOptions& options : kAllOptions) {
    const StoreDir dir;
    const auto device = open_device(dir, options);
    REQUIRE(device->add_segment(100));
    AlignedBuffer buffer(4 * kBlockBytes);
    for (const BlockRun& run :
         {run_of(99, 2), run_of(100, 1), run_of(1'000'000, 1), run_of(UINT64_MAX, 2)}) {
      const BlockRead read{run, buffer.data()};
      const BlockWrite write{run, buffer.data()};
      CHECK(device->read({&read, 1}).error().errno_value() == EIO);
      CHECK(device->write({&write, 1}).error().errno_value() == EIO);
    }
    CHECK(fs::file_size(dir.file("0000.seg")) == 100 * kBlockBytes);
    // Somebody cuts the file under our feet.
    REQUIRE(::truncate(dir.file("0000.seg").c_str(), 50 * kBlockBytes) == 0);
    for (const BlockRun& run : {run_of(49, 2), run_of(50, 1)}) {
      const BlockRead read{run, buffer.data()};
      CHECK(device->read({&read, 1}).error().errno_value() == EIO);
    }
    const BlockRead read{run_of(46, 4), buffer.data()};
    CHECK(device->read({&read, 1}));
  }
}

TEST_CASE("broken sets of segments are corruption") {
  const StoreDir dir;
  const auto is_corrupt = [&] {
    const auto device = open_segment_device(dir.path(), {});
    return !device && device.error().is_corruption();
  };
  const std::uint64_t full = kSegmentBlocks * kBlockBytes;
  SECTION("one is missing") {
    dir.make_sparse("0000.seg", full);
    dir.make_sparse("0002.seg", full);
    CHECK(is_corrupt());
    dir.make_sparse("0001.seg", full);
    CHECK_FALSE(is_corrupt());
  }
  SECTION("the first is missing") {
    dir.make_sparse("0001.seg", full);
    CHECK(is_corrupt());
  }
  SECTION("one is short") {
    dir.make_sparse("0000.seg", full - kBlockBytes);
    CHECK_FALSE(is_corrupt());
    dir.make_sparse("0001.seg", full);
    CHECK(is_corrupt());
  }
  SECTION("no whole blocks") {
    dir.make_sparse("0000.seg", 512);
    CHECK(is_corrupt());
    // The end of the last one may be what a crash left of its growth.
    dir.make_sparse("0000.seg", full - 512);
    CHECK_FALSE(is_corrupt());
    CHECK(open_device(dir)->blocks() == kSegmentBlocks - 1);
    dir.make_sparse("0001.seg", full);
    CHECK(is_corrupt());
  }
  SECTION("empty") {
    dir.make_sparse("0000.seg", 0);
    CHECK(is_corrupt());
  }
  SECTION("too long") {
    dir.make_sparse("0000.seg", full + kBlockBytes);
    CHECK(is_corrupt());
  }
  SECTION("not a file") {
    REQUIRE(::mkfifo(dir.file("0000.seg").c_str(), 0600) == 0);
    CHECK(is_corrupt());
  }
  SECTION("other names do not matter") {
    dir.make_sparse("0000.seg", kBlockBytes);
    for (const char* name : {"1.seg", "00001.seg", "x.seg", ".seg", "0001.seg.bak", "-001.seg",
                             "0001", "99999999999999999999999.seg"}) {
      dir.make_sparse(name, 10);
    }
    CHECK_FALSE(is_corrupt());
    CHECK(open_device(dir)->blocks() == 1);
  }
  SECTION("no directory") {
    const auto device = open_segment_device(dir.file("none"), {});
    REQUIRE_FALSE(device);
    CHECK(device.error().errno_value() == ENOENT);
  }
}

TEST_CASE("a device that may only be read stays as it is") {
  const StoreDir dir;
  {
    const auto device = open_device(dir);
    REQUIRE(device->add_segment(100));
    REQUIRE(write_pattern(*device, run_of(0, 100), 1));
  }
  const auto device = open_device(dir, {.read_only = true});
  CHECK(has_pattern(*device, run_of(0, 100), 1));
  CHECK(write_pattern(*device, run_of(0, 1), 2).error().errno_value() == EROFS);
  CHECK(device->add_segment(100).error().errno_value() == EROFS);
  device->discard(std::array{run_of(0, 100)});
  CHECK(device->sync());
  CHECK(has_pattern(*device, run_of(0, 100), 1));
  CHECK(dir.names() == std::set<std::string>{"0000.seg"});
}

TEST_CASE("growing obeys the geometry and tidies up") {
  const StoreDir dir;
  dir.make_sparse("0000.seg", kSegmentBlocks * kBlockBytes);
  const auto device = open_device(dir);
  CHECK(device->add_segment(0).error().errno_value() == EINVAL);
  CHECK(device->add_segment(kSegmentBlocks + 1).error().errno_value() == EINVAL);
  { std::ofstream(dir.file("0001.seg")) << "somebody's"; }
  CHECK(device->add_segment(10).error().errno_value() == EEXIST);
  CHECK(fs::file_size(dir.file("0001.seg")) == 10);
  fs::remove(dir.file("0001.seg"));
  { std::ofstream(dir.file("new.seg")) << "left by a crash"; }
  REQUIRE(device->add_segment(10));
  CHECK(dir.names() == std::set<std::string>{"0000.seg", "0001.seg"});
  CHECK(device->add_segment(10).error().errno_value() == EINVAL);
  AlignedBuffer buffer(10 * kBlockBytes);
  std::fill(buffer.span().begin(), buffer.span().end(), std::byte{1});
  const BlockRead read{run_of(kSegmentBlocks, 10), buffer.data()};
  REQUIRE(device->read({&read, 1}));
  CHECK(std::count(buffer.span().begin(), buffer.span().end(), std::byte{0}) == 10 * kBlockBytes);
}

TEST_CASE("a host without room leaves nothing half made") {
  const StoreDir dir;
  const int outcome = in_child([&] {
    if (!mount_privately(dir.path(), "tmpfs", "size=8m")) {
      return kCannot;
    }
    auto device = open_segment_device(dir.path(), {});
    if (!device) {
      return 1;
    }
    const Result<void> grown = (*device)->add_segment(4096);
    if (grown || grown.error().errno_value() != ENOSPC) {
      return 2;
    }
    if (!dir.names().empty() || (*device)->blocks() != 0) {
      return 3;
    }
    if ((*device)->host_free_bytes() != 8U << 20) {
      return 4;
    }
    return (*device)->add_segment(1024) && (*device)->host_free_bytes() == 4U << 20 ? 0 : 5;
  });
  if (outcome == kCannot) {
    WARN("needs the right to mount");
  } else {
    CHECK(outcome == 0);
  }
}

TEST_CASE("a host that has neither direct I/O nor fallocate will do") {
  const StoreDir dir;
  const int outcome = in_child([&] {
    if (!mount_privately(dir.path(), "ramfs", nullptr)) {
      return kCannot;
    }
    for (int round = 0; round < 2; ++round) {
      auto device = open_segment_device(dir.path(), {.mode = IoMode::kDirect});
      if (!device) {
        return 1;
      }
      if (round == 0 && !(*device)->add_segment(700)) {
        return 2;
      }
      if (round == 0 && !write_pattern(**device, run_of(0, 700), 1)) {
        return 3;
      }
      if (!has_pattern(**device, run_of(0, 700), 1)) {
        return 4;
      }
      (*device)->discard(std::array{run_of(0, 10)});
      if (!(*device)->sync() || !has_pattern(**device, run_of(10, 690), 1)) {
        return 5;
      }
      if (!write_pattern(**device, run_of(0, 10), 1)) {
        return 6;
      }
    }
    return 0;
  });
  if (outcome == kCannot) {
    WARN("needs the right to mount");
  } else {
    CHECK(outcome == 0);
  }
}

TEST_CASE("discarding gives the host its space back") {
  const StoreDir dir;
  const auto device = open_device(dir);
  REQUIRE(device->add_segment(1000));
  REQUIRE(write_pattern(*device, run_of(0, 1000), 1));
  REQUIRE(device->sync());
  const auto held = [&] {
    struct stat status {};
    REQUIRE(::stat(dir.file("0000.seg").c_str(), &status) == 0);
    return static_cast<std::uint64_t>(status.st_blocks) * 512;
  };
  const std::uint64_t before = held();
  device->discard(std::array{run_of(100, 200), run_of(990, 10), run_of(999, 2)});
  if (held() == before) {
    WARN("the host does not punch holes");
  } else {
    CHECK(before - held() == 210 * kBlockBytes);
  }
  CHECK(fs::file_size(dir.file("0000.seg")) == 1000 * kBlockBytes);
  CHECK(has_pattern(*device, run_of(0, 100), 1));
  CHECK(has_pattern(*device, run_of(300, 690), 1));
  REQUIRE(write_pattern(*device, run_of(150, 20), 2));
  REQUIRE(device->sync());
  CHECK(has_pattern(*device, run_of(150, 20), 2));
}

TEST_CASE("more threads than rings, and a store that grows under them") {
  constexpr unsigned kThreads = 24;
  for (const SegmentDeviceOptions& options : kAllOptions) {
    const StoreDir dir;
    dir.make_sparse("0000.seg", kSegmentBlocks * kBlockBytes);
    const auto device = open_device(dir, options);
    std::atomic<int> failures = 0;
    std::vector<std::thread> threads;
    for (unsigned id = 0; id < kThreads; ++id) {
      threads.emplace_back([&, id] {
        for (unsigned round = 0; round < 12; ++round) {
          const BlockRun run = run_of(id * 1000 + round * 7, 3 + round % 3);
          failures += !write_pattern(*device, run, id);
          failures += round % 4 == 0 && !device->sync();
          failures += !has_pattern(*device, run, id);
          const std::uint64_t end = device->blocks();
          if (end > kSegmentBlocks) {
            failures += !write_pattern(*device, run_of(end - 1 - id, 1), 1);
          }
        }
      });
    }
    failures += !device->add_segment(64);
    for (std::thread& thread : threads) {
      thread.join();
    }
    CHECK(failures == 0);
    for (unsigned id = 0; id < kThreads; ++id) {
      CHECK(has_pattern(*device, run_of(id * 1000 + 77, 5), id));
    }
  }
}

}  // namespace
}  // namespace odx
