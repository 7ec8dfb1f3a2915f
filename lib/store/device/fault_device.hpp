// The twin of the segment device for tests: blocks in memory, a volatile cache that a crash
// empties in the worst ways, and failures on demand.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <span>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "base/result.hpp"
#include "base/types.hpp"
#include "store/device/block_device.hpp"

namespace odx {

// kAddSegment is any growth.
enum class FaultOp { kRead, kWrite, kSync, kAddSegment, kCut, kBack };

// Makes one call, or all calls from one on, fail.
struct Fault {
  FaultOp op = FaultOp::kRead;
  std::uint64_t nth = 1;  // counted from when it is armed; 1 is the next call
  int errno_value = EIO;
  bool forever = false;  // also every call after the nth
};

// What it does is a function of its seed, of the calls (and their order) and of the crash seeds.
// Blocks never written read as zeros, discarded ones as garbage. Thread-safe.
class FaultDevice final : public BlockDevice {
 public:
  explicit FaultDevice(std::uint64_t seed = 0);
  // `host_bytes` are what growth and back() can take in all, and discard() and cut() give back;
  // unlimited otherwise.
  FaultDevice(std::uint64_t seed, std::uint64_t host_bytes);
  ~FaultDevice() override;

  [[nodiscard]] std::uint64_t blocks() const override;
  Result<void> read(std::span<const BlockRead> runs) override;
  // A failing write leaves a random part of itself in the cache.
  Result<void> write(std::span<const BlockWrite> runs) override;
  // As with the real device, after a failed sync every later one fails too, until crash().
  Result<void> sync() override;
  Result<void> add_segment(std::uint64_t blocks) override;
  Result<void> extend(std::uint64_t blocks) override;
  Result<void> cut(std::uint64_t blocks) override;
  void discard(std::span<const BlockRun> runs) override;
  [[nodiscard]] bool can_discard() const override;
  Result<void> back(std::span<const BlockRun> runs) override;
  [[nodiscard]] std::uint64_t host_free_bytes() const override;

  // What the host has, for better or worse.
  void set_host_free_bytes(std::uint64_t bytes);
  void forbid_discard();
  // Blocks that are written while nothing is set aside for them take host space, or fail.
  [[nodiscard]] std::uint64_t absent_blocks() const;

  // Power loss and restart: of the writes since the last sync a random subset, in random order,
  // reaches the medium, some of them only in part, by units of 512 or 4096 bytes. Faults are
  // disarmed.
  void crash(std::uint64_t seed);
  // What crash(seed) would leave, as a device of its own; this one stays as it is.
  [[nodiscard]] std::unique_ptr<FaultDevice> crashed_copy(std::uint64_t seed) const;

  void arm(const Fault& fault);
  // Forgets armed faults and a power cut still to come.
  void disarm();
  // After `calls` more calls of write, sync, add_segment and discard, everything fails with EIO
  // until crash(). The write that meets the cut leaves a random part of itself in the cache.
  void cut_power_after(std::uint64_t calls);

  // Flips the bits of `mask` in byte `byte` (0 to 4095) of a block, on the medium and in the cache.
  void corrupt(BlockNo block, std::size_t byte, std::byte mask);

  // A device for one store to own. All it does happens here; this must outlive it.
  [[nodiscard]] std::unique_ptr<BlockDevice> handle();

  // Calls so far, failed ones included.
  [[nodiscard]] std::uint64_t calls(FaultOp op) const;
  [[nodiscard]] std::size_t unsynced_writes() const;

 private:
  using Block = std::array<std::byte, kBlockBytes>;
  // Blocks that are not in it are zeros.
  using Image = std::unordered_map<std::uint64_t, Block>;
  struct Unsynced {
    PhysAddr at;  // a multiple of 512, as is the size
    std::vector<std::byte> data;
  };
  struct Armed {
    Fault fault;
    std::uint64_t seen = 0;
  };
  enum class Power { kOn, kFailing, kOff };

  FaultDevice(const FaultDevice& other, std::uint64_t crash_seed);

  [[nodiscard]] bool contains(BlockRun run) const;
  std::optional<int> failure(FaultOp op);
  Power draw_power();
  void cache(PhysAddr at, std::span<const std::byte> data);
  void cache_part(std::span<const BlockWrite> runs);
  Result<void> grow_locked(std::uint64_t blocks);
  Result<void> take_host_blocks(std::uint64_t blocks);
  std::vector<std::uint64_t> absent_in(BlockRun run) const;
  void crash_locked(std::uint64_t seed);

  static void put(Image& image, const Image& below, PhysAddr at, std::span<const std::byte> data);
  template <class Keep>
  static void put_torn(std::mt19937_64& random, PhysAddr at, std::span<const std::byte> data,
                       Keep keep);

  mutable std::mutex mutex_;
  std::uint64_t blocks_ = 0;
  std::uint64_t host_free_bytes_;
  Image medium_;
  Image cache_;
  std::vector<Unsynced> unsynced_;
  std::vector<Armed> armed_;
  std::optional<std::uint64_t> power_left_;  // changes until the cut
  bool dead_ = false;
  int sync_errno_ = 0;
  std::array<std::uint64_t, 6> calls_{};
  std::unordered_set<std::uint64_t> absent_;  // blocks that the host holds no space for
  bool discards_ = true;
  std::mt19937_64 random_;
};

}  // namespace odx
