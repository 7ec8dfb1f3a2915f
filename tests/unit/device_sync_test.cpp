// What BlockDevice::sync() promises, with an engine that is watched.
#include <array>
#include <atomic>
#include <catch2/catch.hpp>
#include <functional>
#include <future>
#include <mutex>
#include <thread>
#include <vector>

#include "device_world.hpp"
#include "store/device/io_engine.hpp"

namespace odx {
namespace {

using namespace test;

class WatchedEngine final : public IoEngine {
 public:
  Result<void> run(std::span<const IoRequest> requests) override { return real_->run(requests); }
  Result<void> sync(std::span<const int> fds) override {
    {
      const std::scoped_lock lock(mutex);
      synced.emplace_back(fds.size());
    }
    overlapped = overlapped | (inside++ != 0);
    before_flush();
    Result<void> outcome = errno_value == 0 ? real_->sync(fds) : Result<void>(fail(errno_value));
    --inside;
    return outcome;
  }
  [[nodiscard]] IoEngineKind kind() const override { return IoEngineKind::kSync; }

  std::mutex mutex;
  std::vector<std::size_t> synced;  // descriptors in each call
  std::function<void()> before_flush = [] {};
  std::atomic<int> errno_value = 0;
  std::atomic<int> inside = 0;
  std::atomic<bool> overlapped = false;

 private:
  std::unique_ptr<IoEngine> real_ = make_io_engine(IoEngineKind::kSync);
};

struct Watched {
  explicit Watched(const StoreDir& dir) {
    dir.make_sparse("0000.seg", kSegmentBlocks * kBlockBytes);
    dir.make_sparse("0001.seg", kSegmentBlocks * kBlockBytes);
    dir.make_sparse("0002.seg", 100 * kBlockBytes);
    auto owned = std::make_unique<WatchedEngine>();
    engine = owned.get();
    auto opened = open_segment_device(dir.path(), {}, std::move(owned));
    REQUIRE(opened);
    device = std::move(*opened);
  }
  [[nodiscard]] std::size_t flushed() const {
    const std::scoped_lock lock(engine->mutex);
    std::size_t sum = 0;
    for (const std::size_t fds : engine->synced) {
      sum += fds;
    }
    return sum;
  }
  WatchedEngine* engine;
  std::unique_ptr<BlockDevice> device;
};

TEST_CASE("sync flushes the segments that were written, once") {
  const StoreDir dir;
  Watched it(dir);
  CHECK(it.device->sync());
  CHECK(it.flushed() == 0);
  REQUIRE(write_pattern(*it.device, run_of(5, 1), 1));
  REQUIRE(write_pattern(*it.device, run_of(9, 1), 1));
  CHECK(it.device->sync());
  CHECK(it.flushed() == 1);
  CHECK(it.device->sync());
  CHECK(it.flushed() == 1);
  REQUIRE(write_pattern(*it.device, run_of(kSegmentBlocks - 1, 2), 1));
  CHECK(it.device->sync());
  CHECK(it.flushed() == 3);
  REQUIRE(write_pattern(*it.device, run_of(2 * kSegmentBlocks + 99, 1), 1));
  CHECK(it.device->sync());
  CHECK(it.flushed() == 4);
  CHECK(has_pattern(*it.device, run_of(5, 1), 1));
  CHECK(it.device->sync());
  CHECK(it.flushed() == 4);
}

TEST_CASE("a write beside a flush is left to the next flush") {
  const StoreDir dir;
  Watched it(dir);
  REQUIRE(write_pattern(*it.device, run_of(0, 1), 1));
  bool written = false;
  it.engine->before_flush = [&] {
    if (!written) {
      written = true;
      REQUIRE(write_pattern(*it.device, run_of(1, 1), 1));
    }
  };
  CHECK(it.device->sync());
  CHECK(it.flushed() == 1);
  CHECK(it.device->sync());
  CHECK(it.flushed() == 2);
  CHECK(it.device->sync());
  CHECK(it.flushed() == 2);
}

TEST_CASE("a sync that comes while another is in flight is not answered by that one") {
  const StoreDir dir;
  Watched it(dir);
  REQUIRE(write_pattern(*it.device, run_of(0, 1), 1));
  std::promise<void> first_began;
  std::promise<void> second_written;
  std::atomic<int> flushes = 0;
  it.engine->before_flush = [&] {
    if (flushes++ == 0) {
      first_began.set_value();
      second_written.get_future().wait();
    }
  };
  bool first_ok = false;
  std::thread first([&] { first_ok = it.device->sync().has_value(); });
  first_began.get_future().wait();
  const bool wrote = write_pattern(*it.device, run_of(1, 1), 1).has_value();
  bool second_ok = false;
  std::thread second([&] { second_ok = it.device->sync().has_value(); });
  second_written.set_value();
  first.join();
  second.join();
  CHECK(wrote);
  CHECK(first_ok);
  CHECK(second_ok);
  CHECK(flushes == 2);
}

TEST_CASE("a failed sync fails for ever") {
  const StoreDir dir;
  Watched it(dir);
  REQUIRE(write_pattern(*it.device, run_of(0, 1), 1));
  it.engine->errno_value = EIO;
  CHECK(it.device->sync().error().errno_value() == EIO);
  it.engine->errno_value = 0;
  CHECK(it.device->sync().error().errno_value() == EIO);
  REQUIRE(write_pattern(*it.device, run_of(0, 1), 2));
  CHECK(it.device->sync().error().errno_value() == EIO);
  CHECK(it.flushed() == 1);
}

// If they did not, one of them could miss an error that the kernel tells the other.
TEST_CASE("flushes take turns") {
  const StoreDir dir;
  Watched it(dir);
  it.engine->before_flush = [] { std::this_thread::yield(); };
  std::atomic<int> failures = 0;
  std::vector<std::thread> threads;
  for (unsigned id = 0; id < 4; ++id) {
    threads.emplace_back([&, id] {
      for (unsigned round = 0; round < 40; ++round) {
        failures += !write_pattern(*it.device, run_of(id * 100 + round, 1), 1);
        failures += !it.device->sync();
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  CHECK(failures == 0);
  CHECK_FALSE(it.engine->overlapped);
}

TEST_CASE("two syncs beside each other both hear of a failure") {
  const StoreDir dir;
  Watched it(dir);
  REQUIRE(write_pattern(*it.device, run_of(0, 1), 1));
  // Only one flush gets to see the error, as with the kernel.
  std::atomic<int> flushes = 0;
  it.engine->before_flush = [&] { it.engine->errno_value = flushes++ == 0 ? EIO : 0; };
  std::array<std::atomic<int>, 4> errnos{};
  std::vector<std::thread> threads;
  for (std::atomic<int>& seen : errnos) {
    threads.emplace_back([&] {
      const Result<void> outcome = it.device->sync();
      seen = outcome ? 0 : outcome.error().errno_value();
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  for (const std::atomic<int>& seen : errnos) {
    CHECK(seen == EIO);
  }
}

}  // namespace
}  // namespace odx
