// What a store takes of its host and gives back: growth in steps, holes, limits that change, full
// stores and full hosts. Every store ends with a check that recounts everything.
#include "store/host_space.hpp"

#include <sys/stat.h>

#include <array>
#include <atomic>
#include <catch2/catch.hpp>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "base/aligned_buffer.hpp"
#include "must.hpp"
#include "store/check/check.hpp"
#include "store/device/fault_device.hpp"
#include "store/store.hpp"
#include "temp_dir.hpp"

namespace odx::test {
namespace {

constexpr std::uint64_t kMiB = 1ULL << 20;
constexpr std::uint64_t kReserve = 64 * kMiB;
constexpr std::uint64_t kEndless = UINT64_MAX;

// A store on a host of so many bytes beyond the reserve. Nothing happens behind the test's back.
class HostWorld {
 public:
  HostWorld(std::uint64_t limit, std::uint64_t host_room)
      : device(7, host_room == kEndless ? kEndless : kReserve + host_room) {
    FormatOptions format;
    format.limit_bytes = limit;
    format.journal_bytes = 4 * kMiB;
    must(Store::format(path(), format));
    open();
  }
  void open() {
    OpenOptions options;
    options.background = false;
    options.test_device = device.handle();
    store = must(Store::open(path(), std::move(options)));
  }
  void remount() {
    must(store->close());
    store.reset();
    open();
  }
  void crash() {
    store.reset();
    device.crash(3);
    open();
  }
  // Everything is recounted, and every block read.
  void finish() {
    must(store->names().sync());
    CheckOptions options;
    options.data = true;
    const CheckReport report = must(check_state(
        {*core().meta, core().super.uuid, core().device->blocks(), core().device.get()}, options));
    for (const std::string& problem : report.problems) {
      UNSCOPED_INFO(problem);
    }
    REQUIRE(report.clean());
    must(store->close());
  }
  Core& core() { return store->core(); }
  [[nodiscard]] std::string path() const { return dir_.file("store"); }

  static std::string bytes_of(const std::string& name) {
    std::mt19937_64 random(std::hash<std::string>{}(name));
    std::string data(kMiB, '\0');
    for (std::size_t at = 0; at < data.size(); at += 8) {
      const std::uint64_t word = random();
      std::memcpy(data.data() + at, &word, sizeof word);
    }
    return data;
  }
  Result<void> put(const std::string& name) {
    NewInode what;
    what.mode = S_IFREG | 0644;
    const InodeNo ino = ODX_TRY(store->names().create(kRootInode, name, what))->ino;
    const std::string data = bytes_of(name);
    auto wrote = store->files().write(ino, FileOffset(0), std::as_bytes(std::span(data)));
    if (!wrote) {
      remove(name);
    }
    return wrote;
  }
  // A MiB each, until there is no room: how many.
  int fill(const std::string& prefix) {
    for (int i = 0;; ++i) {
      REQUIRE(i < 2000);
      if (const auto done = put(prefix + std::to_string(i)); !done) {
        REQUIRE(done.error().errno_value() == ENOSPC);
        return i;
      }
    }
  }
  void remove(const std::string& name) {
    const InodeNo ino = must(store->names().lookup(kRootInode, name))->ino;
    must(store->names().unlink(kRootInode, name));
    must(store->names().reap(ino));
  }
  bool intact(const std::string& name) {
    const InodeNo ino = must(store->names().lookup(kRootInode, name))->ino;
    AlignedBuffer buffer(kMiB);
    return must(store->files().read(ino, FileOffset(0), buffer.span())) == kMiB &&
           std::memcmp(buffer.data(), bytes_of(name).data(), kMiB) == 0;
  }
  std::uint64_t free_bytes() { return core().capacity().free_bytes; }
  void return_all(Core::ReturnSpace how) {
    must(core().hurry_space());
    while (core().return_space(how)) {
    }
  }

  FaultDevice device;
  std::unique_ptr<Store> store;

 private:
  TempDir dir_;
};

TEST_CASE("a store grows in steps, and takes what a small host has") {
  HostWorld world(256 * kMiB, 26 * kMiB + 5000);
  REQUIRE(world.free_bytes() == 26 * kMiB + 4096);
  must(world.put("first"));
  // A sixteenth of the limit.
  REQUIRE(world.device.blocks() == 16 * kMiB / kBlockBytes);
  REQUIRE(world.fill("a") == 25);
  REQUIRE(world.device.blocks() == 26 * kMiB / kBlockBytes + 1);
  REQUIRE(world.free_bytes() < kMiB);
  // The host gets more room: the same segment goes on.
  world.device.set_host_free_bytes(kReserve + 3 * kMiB);
  REQUIRE(world.free_bytes() / kMiB == 3);
  REQUIRE(world.fill("b") == 3);
  REQUIRE(world.core().space.segments() == 1);
  REQUIRE(world.intact("first"));
  REQUIRE(world.intact("a24"));
  REQUIRE(world.intact("b2"));
  world.remount();
  REQUIRE(world.intact("b2"));
  REQUIRE(world.fill("c") == 0);
  world.finish();
}

TEST_CASE("a store whose segment grew before the first commit after a mount") {
  HostWorld world(64 * kMiB, kEndless);
  must(world.put("kept"));
  world.remount();
  // The saved bitmap is of the shorter segment.
  must(world.core().device->extend(1000));
  world.crash();
  REQUIRE(world.intact("kept"));
  REQUIRE(world.fill("a") == 63);
  world.finish();
}

TEST_CASE("freed space goes back to the host, and is set aside again before it is used") {
  HostWorld world(256 * kMiB, 100 * kMiB);
  const int most = world.fill("a");
  REQUIRE(most == 100);
  REQUIRE(world.device.host_free_bytes() - kReserve < kMiB);
  for (int i = 0; i < most; i += 2) {
    world.remove("a" + std::to_string(i));
  }
  for (int i = 1; i < 60; i += 2) {
    world.remove("a" + std::to_string(i));
  }
  must(world.core().hurry_space());
  REQUIRE(world.free_bytes() / kMiB == 80);
  SECTION("all but a step of it") {
    world.return_all(Core::ReturnSpace::kSpare);
    REQUIRE(world.device.host_free_bytes() - kReserve >= 63 * kMiB);
    REQUIRE(world.device.host_free_bytes() - kReserve <= 64 * kMiB + kMiB);
    REQUIRE(world.free_bytes() / kMiB == 80);
    REQUIRE(world.fill("b") == 80);
  }
  SECTION("all of it, and the host fills up meanwhile") {
    world.return_all(Core::ReturnSpace::kAll);
    REQUIRE(world.device.host_free_bytes() - kReserve >= 80 * kMiB);
    world.device.set_host_free_bytes(kReserve + 7 * kMiB);
    REQUIRE(world.free_bytes() / kMiB == 7);
    REQUIRE(world.fill("b") == 7);
    // No promise was broken: what the host has for others is still there.
    REQUIRE(world.device.host_free_bytes() >= kReserve);
    world.remove("b0");
    must(world.put("again"));
    world.device.set_host_free_bytes(kReserve + 300 * kMiB);
    REQUIRE(world.fill("c") == 256 - 27);
  }
  SECTION("across a clean remount, and a crash") {
    world.return_all(Core::ReturnSpace::kAll);
    world.remount();
    must(world.put("b"));
    world.crash();
    REQUIRE(world.intact("a99"));
  }
  SECTION("the host refuses when the space is wanted back") {
    world.return_all(Core::ReturnSpace::kAll);
    world.device.arm({.op = FaultOp::kBack, .nth = 1, .errno_value = ENOSPC, .forever = true});
    // Only growth is left: the host has 80 MiB, and the limit is far.
    must(world.put("b"));
    world.device.disarm();
    REQUIRE(world.fill("c") == 79);
  }
  REQUIRE(world.intact("a99"));
  REQUIRE(world.intact("a61"));
  world.finish();
}

TEST_CASE("nothing in use is ever punched, whatever is freed around it") {
  HostWorld world(64 * kMiB, kEndless);
  std::mt19937_64 random(5);
  NewInode what;
  what.mode = S_IFREG | 0644;
  const InodeNo ino = must(world.store->names().create(kRootInode, "f", what))->ino;
  std::string model(8 * kMiB, '\0');
  for (int i = 0; i < 600; ++i) {
    const std::uint64_t at = random() % (model.size() - 100'000);
    const std::string data(1 + random() % 100'000, static_cast<char>('a' + i % 26));
    must(world.store->files().write(ino, FileOffset(at), std::as_bytes(std::span(data))));
    model.replace(at, data.size(), data);
    if (i % 20 == 0) {
      world.return_all(Core::ReturnSpace::kAll);
    }
  }
  REQUIRE(world.device.absent_blocks() > 0);
  AlignedBuffer buffer(model.size());
  const std::uint64_t size = must(world.store->files().read(ino, FileOffset(0), buffer.span()));
  REQUIRE(std::memcmp(buffer.data(), model.data(), size) == 0);
  world.finish();
}

TEST_CASE("a host that cannot punch keeps the space") {
  HostWorld world(64 * kMiB, 40 * kMiB);
  world.device.forbid_discard();
  REQUIRE(world.fill("a") == 40);
  for (int i = 0; i < 40; ++i) {
    world.remove("a" + std::to_string(i));
  }
  world.return_all(Core::ReturnSpace::kAll);
  REQUIRE(world.core().space.stats().hole_blocks == 0);
  REQUIRE(world.free_bytes() / kMiB == 40);
  REQUIRE(world.fill("b") == 40);
  world.finish();
}

TEST_CASE("a writer gets what is freed for it while it waits") {
  // Its own look at the file must not hold that back.
  HostWorld world(32 * kMiB, kEndless);
  NewInode what;
  what.mode = S_IFREG | 0644;
  const InodeNo ino = must(world.store->names().create(kRootInode, "big", what))->ino;
  const std::string piece(16384, 'x');
  for (std::uint64_t i = 0; i < 1500; ++i) {
    must(world.store->files().write(ino, FileOffset(i * 2 * piece.size()),
                                    std::as_bytes(std::span(piece))));
  }
  REQUIRE(world.fill("a") < 12);
  world.remove("big");
  REQUIRE(world.core().reclaim_pending.load() > 0);
  REQUIRE(world.fill("b") >= 23);
  world.finish();
}

TEST_CASE("a writer waits for readers that hold back what was freed") {
  HostWorld world(16 * kMiB, kEndless);
  REQUIRE(world.fill("a") == 16);
  auto view = std::make_unique<Core::FileView>(must(world.core().view(kRootInode)));
  for (int i = 0; i < 8; ++i) {
    world.remove("a" + std::to_string(i));
  }
  std::atomic<bool> done{false};
  std::thread writer([&] {
    must(world.put("b"));
    done = true;
  });
  // It is on its way once all that was freed is durable; then it can only wait.
  while (world.core().meta->durable() < world.core().meta->committed()) {
    std::this_thread::yield();
  }
  REQUIRE_FALSE(done);
  view.reset();
  writer.join();
  REQUIRE(world.intact("b"));
  world.finish();
}

TEST_CASE("a new limit") {
  HostWorld world(32 * kMiB, kEndless);
  REQUIRE(world.fill("a") == 32);
  ResizeReport report;
  SECTION("a higher one, as often as wanted") {
    for (const std::uint64_t size : {40, 41, 64}) {
      must(world.store->resize(size * kMiB + 5, report));
      REQUIRE(report.limit == size * kMiB);
      REQUIRE(report.exists_before == report.exists);
      REQUIRE(world.core().capacity().total_bytes == size * kMiB);
    }
    REQUIRE(world.fill("b") == 32);
    world.remount();
    REQUIRE(read_superblock(world.path())->limit_blocks == 64 * kMiB / kBlockBytes);
    REQUIRE(world.fill("c") == 0);
  }
  SECTION("one that does not do") {
    REQUIRE(world.store->resize(16 * kMiB - 1, report).error().errno_value() == EINVAL);
    REQUIRE(world.store->resize(UINT64_MAX, report).error().errno_value() == EINVAL);
    REQUIRE(world.store->resize(31 * kMiB, report).error().errno_value() == EBUSY);
    REQUIRE(report.least == 32 * kMiB);
    REQUIRE(report.limit == 32 * kMiB);
    REQUIRE(world.core().limit_blocks.load() == 32 * kMiB / kBlockBytes);
    REQUIRE(read_superblock(world.path())->limit_blocks == 32 * kMiB / kBlockBytes);
  }
  SECTION("a lower one cuts, once what is there is free") {
    for (int i = 20; i < 32; ++i) {
      world.remove("a" + std::to_string(i));
    }
    must(world.store->resize(24 * kMiB, report));
    REQUIRE(report.exists_before == 32 * kMiB);
    REQUIRE(report.exists == 24 * kMiB);
    REQUIRE(world.device.blocks() == 24 * kMiB / kBlockBytes);
    REQUIRE(world.fill("b") == 4);
    world.remount();
    REQUIRE(world.fill("c") == 0);
    REQUIRE(world.intact("b3"));
    must(world.store->resize(26 * kMiB, report));
    REQUIRE(world.fill("d") == 2);
  }
  SECTION("what was punched is cut as well") {
    for (int i = 4; i < 32; ++i) {
      world.remove("a" + std::to_string(i));
    }
    world.return_all(Core::ReturnSpace::kAll);
    REQUIRE(world.core().space.stats().hole_blocks > 0);
    must(world.store->resize(16 * kMiB + 20'480, report));
    REQUIRE(report.exists == 16 * kMiB + 20'480);
    REQUIRE(world.fill("b") == 12);
  }
  SECTION("a cut that fails is not claimed, and finished by the next open") {
    for (int i = 20; i < 32; ++i) {
      world.remove("a" + std::to_string(i));
    }
    world.device.arm({.op = FaultOp::kCut});
    REQUIRE(world.store->resize(24 * kMiB, report).error().errno_value() == EIO);
    REQUIRE(report.limit == 24 * kMiB);
    REQUIRE(report.exists == 32 * kMiB);
    REQUIRE(world.core().space.stats().total_blocks == 32 * kMiB / kBlockBytes);
    world.crash();
    REQUIRE(world.device.blocks() == 24 * kMiB / kBlockBytes);
    REQUIRE(world.fill("b") == 4);
  }
  REQUIRE(world.intact("a0"));
  world.finish();
}

TEST_CASE("limits that change while writers write and the host gets space back") {
  HostWorld world(48 * kMiB, kEndless);
  std::atomic<bool> stop{false};
  std::atomic<int> error{0};
  std::thread janitor([&] {
    std::mt19937_64 random(1);
    ResizeReport report;
    while (!stop) {
      const auto done = world.store->resize((40 + random() % 60) * kMiB, report);
      if (!done && done.error().errno_value() != EBUSY) {
        error = done.error().errno_value();
      }
      while (world.core().return_space(Core::ReturnSpace::kAll)) {
      }
    }
  });
  for (int round = 0; round < 6; ++round) {
    for (int i = 0; i < 30; ++i) {
      must(world.put("f" + std::to_string(i)));
    }
    for (int i = 0; i < 30; ++i) {
      REQUIRE(world.intact("f" + std::to_string(i)));
      world.remove("f" + std::to_string(i));
    }
  }
  stop = true;
  janitor.join();
  REQUIRE(error == 0);
  world.finish();
}

TEST_CASE("segments grow, are cut, and know their holes") {
  TempDir dir;
  SegmentDeviceOptions options;
  auto device = must(open_segment_device(dir.path(), options));
  const auto held = [&] {
    struct stat status {};
    REQUIRE(::stat(dir.file("0000.seg").c_str(), &status) == 0);
    return static_cast<std::uint64_t>(status.st_blocks) * 512;
  };
  REQUIRE(device->extend(10).error().errno_value() == EINVAL);
  must(device->add_segment(256));
  must(device->extend(1000));
  REQUIRE(device->blocks() == 1256);
  REQUIRE(held() >= 1256 * kBlockBytes);
  AlignedBuffer data(kBlockBytes);
  std::memset(data.data(), 'x', kBlockBytes);
  for (const std::uint64_t block : {0, 255, 256, 1255}) {
    const BlockWrite write{{BlockNo(block), 1}, data.data()};
    must(device->write({&write, 1}));
  }
  must(device->sync());
  device->discard(std::array{BlockRun{BlockNo(512), 512}});
  if (device->can_discard()) {
    REQUIRE(held() < 800 * kBlockBytes);
  }
  device = must(open_segment_device(dir.path(), options));
  REQUIRE(device->blocks() == 1256);
  std::uint64_t holes = 0;
  for (const BlockRun& run : device->holes()) {
    REQUIRE(run.first >= BlockNo(512));
    REQUIRE(run.end() <= BlockNo(1024));
    holes += run.count;
  }
  REQUIRE((holes == 512 || holes == 0));  // a host that tells, or does not
  must(device->back(std::array{BlockRun{BlockNo(512), 512}}));
  REQUIRE(held() >= 1256 * kBlockBytes);
  REQUIRE(device->holes().empty());
  must(device->cut(300));
  REQUIRE(device->blocks() == 300);
  const BlockRead behind{{BlockNo(300), 1}, data.data()};
  REQUIRE(device->read({&behind, 1}).error().errno_value() == EIO);
  const BlockRead before{{BlockNo(256), 1}, data.data()};
  must(device->read({&before, 1}));
  REQUIRE(data.data()[17] == std::byte{'x'});
  must(device->extend(kSegmentBlocks - 300 > 500 ? 500 : 0));
  must(device->cut(0));
  REQUIRE(device->blocks() == 0);
  device = must(open_segment_device(dir.path(), options));
  REQUIRE(device->blocks() == 0);
}

}  // namespace
}  // namespace odx::test
