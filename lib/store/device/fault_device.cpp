// Purpose: be a disk at its worst, reproducibly.
//
// Three things hold the contents: medium_ is what survives, unsynced_ lists the writes that it has
// not got yet, in order, and cache_ is what readers see of them. sync() empties the list onto the
// medium; crash() does so with chosen parts of it. A random choice takes one draw from a generator
// that is seeded by the constructor or by crash(), and never depends on the order of a hash map.
//
// Locking: mutex_ guards everything; nothing else is called under it.
#include "store/device/fault_device.hpp"

#include <algorithm>
#include <cstring>
#include <numeric>

namespace odx {

namespace {

using Random = std::mt19937_64;

constexpr std::uint64_t kUnlimited = UINT64_MAX;
constexpr std::size_t kSectorBytes = 512;

// 0 to n - 1. The standard distributions differ between libraries; this does not.
std::uint64_t below(Random& random, std::uint64_t n) { return random() % n; }

bool chance(Random& random, std::uint64_t percent) { return below(random, 100) < percent; }

class Handle final : public BlockDevice {
 public:
  explicit Handle(FaultDevice& device) : device_(device) {}
  [[nodiscard]] std::uint64_t blocks() const override { return device_.blocks(); }
  Result<void> read(std::span<const BlockRead> runs) override { return device_.read(runs); }
  Result<void> write(std::span<const BlockWrite> runs) override { return device_.write(runs); }
  Result<void> sync() override { return device_.sync(); }
  Result<void> add_segment(std::uint64_t blocks) override { return device_.add_segment(blocks); }
  Result<void> extend(std::uint64_t blocks) override { return device_.extend(blocks); }
  Result<void> cut(std::uint64_t blocks) override { return device_.cut(blocks); }
  Result<void> back(std::span<const BlockRun> runs) override { return device_.back(runs); }
  [[nodiscard]] bool can_discard() const override { return device_.can_discard(); }
  void discard(std::span<const BlockRun> runs) override { device_.discard(runs); }
  [[nodiscard]] std::uint64_t host_free_bytes() const override { return device_.host_free_bytes(); }

 private:
  FaultDevice& device_;
};

}  // namespace

FaultDevice::FaultDevice(std::uint64_t seed) : FaultDevice(seed, kUnlimited) {}

FaultDevice::FaultDevice(std::uint64_t seed, std::uint64_t host_bytes)
    : host_free_bytes_(host_bytes), random_(seed) {}

FaultDevice::FaultDevice(const FaultDevice& other, std::uint64_t crash_seed)
    : blocks_(other.blocks_),
      host_free_bytes_(other.host_free_bytes_),
      medium_(other.medium_),
      unsynced_(other.unsynced_),
      absent_(other.absent_),
      discards_(other.discards_),
      random_(other.random_) {
  crash_locked(crash_seed);
}

FaultDevice::~FaultDevice() = default;

std::uint64_t FaultDevice::blocks() const {
  const std::scoped_lock lock(mutex_);
  return blocks_;
}

bool FaultDevice::contains(BlockRun run) const {
  return run.first.value() <= blocks_ && run.count <= blocks_ - run.first.value();
}

// Counts a call and says with which errno it must fail, if it must.
std::optional<int> FaultDevice::failure(FaultOp op) {
  ++calls_[static_cast<std::size_t>(op)];
  std::optional<int> outcome;
  for (Armed& armed : armed_) {
    if (armed.fault.op != op) {
      continue;
    }
    ++armed.seen;
    if (armed.seen == armed.fault.nth || (armed.fault.forever && armed.seen > armed.fault.nth)) {
      outcome = armed.fault.errno_value;
    }
  }
  return outcome;
}

// Counts a call that changes something.
FaultDevice::Power FaultDevice::draw_power() {
  if (dead_) {
    return Power::kOff;
  }
  if (power_left_ && (*power_left_)-- == 0) {
    dead_ = true;
    return Power::kFailing;
  }
  return Power::kOn;
}

// Overwrites bytes of an image; a block that it does not have yet starts as it is in `below`.
void FaultDevice::put(Image& image, const Image& below, PhysAddr at,
                      std::span<const std::byte> data) {
  while (!data.empty()) {
    const std::uint64_t number = block_of(at).value();
    const std::size_t in_block = at.value() % kBlockBytes;
    const std::size_t bytes = std::min(data.size(), kBlockBytes - in_block);
    const auto [block, is_new] = image.try_emplace(number);
    if (is_new) {
      const auto old = below.find(number);
      block->second = old == below.end() ? Block{} : old->second;
    }
    std::memcpy(block->second.data() + in_block, data.data(), bytes);
    data = data.subspan(bytes);
    at += bytes;
  }
}

// Calls keep(at, data) for a random half of the units of a write.
template <class Keep>
void FaultDevice::put_torn(Random& random, PhysAddr at, std::span<const std::byte> data,
                           Keep keep) {
  const std::size_t unit = chance(random, 50) ? kSectorBytes : kBlockBytes;
  while (!data.empty()) {
    const std::size_t bytes = std::min(data.size(), unit);
    if (chance(random, 50)) {
      keep(at, data.first(bytes));
    }
    data = data.subspan(bytes);
    at += bytes;
  }
}

void FaultDevice::cache(PhysAddr at, std::span<const std::byte> data) {
  put(cache_, medium_, at, data);
  unsynced_.push_back({at, {data.begin(), data.end()}});
}

void FaultDevice::cache_part(std::span<const BlockWrite> runs) {
  for (const BlockWrite& write : runs) {
    put_torn(random_, address_of(write.run.first), {write.data, write.run.count * kBlockBytes},
             [&](PhysAddr at, std::span<const std::byte> data) { cache(at, data); });
  }
}

Result<void> FaultDevice::read(std::span<const BlockRead> runs) {
  const std::scoped_lock lock(mutex_);
  if (const auto errno_value = failure(FaultOp::kRead)) {
    return fail(*errno_value, "injected read failure");
  }
  if (dead_) {
    return fail(EIO, "no power");
  }
  for (const BlockRead& read : runs) {
    if (!contains(read.run)) {
      return fail(EIO, "read behind the last block of the store");
    }
    std::byte* into = read.data;
    for (BlockNo at = read.run.first; at < read.run.end(); at += 1) {
      const auto cached = cache_.find(at.value());
      const auto stored = medium_.find(at.value());
      if (cached != cache_.end()) {
        std::memcpy(into, cached->second.data(), kBlockBytes);
      } else if (stored != medium_.end()) {
        std::memcpy(into, stored->second.data(), kBlockBytes);
      } else {
        std::memset(into, 0, kBlockBytes);
      }
      into += kBlockBytes;
    }
  }
  return {};
}

Result<void> FaultDevice::write(std::span<const BlockWrite> runs) {
  const std::scoped_lock lock(mutex_);
  for (const BlockWrite& write : runs) {
    if (!contains(write.run)) {
      return fail(EIO, "write behind the last block of the store");
    }
  }
  const auto injected = failure(FaultOp::kWrite);
  const Power power = draw_power();
  if (power == Power::kOff) {
    return fail(EIO, "no power");
  }
  if (injected || power == Power::kFailing) {
    cache_part(runs);
    return fail(injected.value_or(EIO), "injected write failure");
  }
  for (const BlockWrite& write : runs) {
    const std::vector<std::uint64_t> absent = absent_in(write.run);
    ODX_TRY(take_host_blocks(absent.size()));
    for (const std::uint64_t block : absent) {
      absent_.erase(block);
    }
    cache(address_of(write.run.first), {write.data, write.run.count * kBlockBytes});
  }
  return {};
}

Result<void> FaultDevice::sync() {
  const std::scoped_lock lock(mutex_);
  const auto injected = failure(FaultOp::kSync);
  if (draw_power() != Power::kOn) {
    return fail(EIO, "no power");
  }
  if (sync_errno_ != 0) {
    return fail(sync_errno_, "an earlier sync failed");
  }
  if (injected) {
    sync_errno_ = *injected;
    return fail(sync_errno_, "injected sync failure");
  }
  for (const Unsynced& write : unsynced_) {
    put(medium_, Image{}, write.at, write.data);
  }
  unsynced_.clear();
  cache_.clear();
  return {};
}

Result<void> FaultDevice::add_segment(std::uint64_t blocks) {
  const std::scoped_lock lock(mutex_);
  if (blocks == 0 || blocks > kSegmentBlocks) {
    return fail(EINVAL, "a segment has 1 to 262144 blocks");
  }
  if (blocks_ % kSegmentBlocks != 0) {
    return fail(EINVAL, "nothing can follow a short segment");
  }
  return grow_locked(blocks);
}

Result<void> FaultDevice::extend(std::uint64_t blocks) {
  const std::scoped_lock lock(mutex_);
  const std::uint64_t rest = (kSegmentBlocks - blocks_ % kSegmentBlocks) % kSegmentBlocks;
  if (blocks == 0 || blocks > rest) {
    return fail(EINVAL, "the last segment has no room for that");
  }
  return grow_locked(blocks);
}

Result<void> FaultDevice::grow_locked(std::uint64_t blocks) {
  const auto injected = failure(FaultOp::kAddSegment);
  if (draw_power() != Power::kOn) {
    return fail(EIO, "no power");
  }
  if (injected) {
    return fail(*injected, "injected failure to grow");
  }
  ODX_TRY(take_host_blocks(blocks));
  blocks_ += blocks;
  return {};
}

Result<void> FaultDevice::take_host_blocks(std::uint64_t blocks) {
  if (blocks * kBlockBytes > host_free_bytes_) {
    return fail(ENOSPC, "the host is full");
  }
  if (host_free_bytes_ != kUnlimited) {
    host_free_bytes_ -= blocks * kBlockBytes;
  }
  return {};
}

std::vector<std::uint64_t> FaultDevice::absent_in(BlockRun run) const {
  std::vector<std::uint64_t> absent;
  for (BlockNo at = run.first; at < run.end() && !absent_.empty(); at += 1) {
    if (absent_.contains(at.value())) {
      absent.push_back(at.value());
    }
  }
  return absent;
}

Result<void> FaultDevice::cut(std::uint64_t blocks) {
  const std::scoped_lock lock(mutex_);
  if (blocks > blocks_) {
    return fail(EINVAL, "there is nothing to cut");
  }
  const auto injected = failure(FaultOp::kCut);
  if (draw_power() != Power::kOn) {
    return fail(EIO, "no power");
  }
  if (injected) {
    return fail(*injected, "injected failure to cut");
  }
  const BlockRun gone{BlockNo(blocks), blocks_ - blocks};
  const std::uint64_t held = gone.count - absent_in(gone).size();
  if (host_free_bytes_ != kUnlimited) {
    host_free_bytes_ += held * kBlockBytes;
  }
  const auto behind = [&](const auto& entry) { return entry.first >= blocks; };
  std::erase_if(medium_, behind);
  std::erase_if(cache_, behind);
  std::erase_if(absent_, [&](std::uint64_t block) { return block >= blocks; });
  std::erase_if(unsynced_,
                [&](const Unsynced& write) { return write.at >= address_of(gone.first); });
  blocks_ = blocks;
  return {};
}

bool FaultDevice::can_discard() const {
  const std::scoped_lock lock(mutex_);
  return discards_;
}

Result<void> FaultDevice::back(std::span<const BlockRun> runs) {
  const std::scoped_lock lock(mutex_);
  if (const auto injected = failure(FaultOp::kBack)) {
    return fail(*injected, "injected failure to set space aside");
  }
  for (const BlockRun& run : runs) {
    const std::vector<std::uint64_t> absent = absent_in(run);
    ODX_TRY(take_host_blocks(absent.size()));
    for (const std::uint64_t block : absent) {
      absent_.erase(block);
    }
  }
  return {};
}

void FaultDevice::set_host_free_bytes(std::uint64_t bytes) {
  const std::scoped_lock lock(mutex_);
  host_free_bytes_ = bytes;
}

void FaultDevice::forbid_discard() {
  const std::scoped_lock lock(mutex_);
  discards_ = false;
}

std::uint64_t FaultDevice::absent_blocks() const {
  const std::scoped_lock lock(mutex_);
  return absent_.size();
}

void FaultDevice::discard(std::span<const BlockRun> runs) {
  const std::scoped_lock lock(mutex_);
  if (draw_power() != Power::kOn || !discards_) {
    return;
  }
  const std::vector<std::byte> garbage(kBlockBytes, std::byte{0xD5});
  for (const BlockRun& run : runs) {
    if (contains(run)) {
      for (BlockNo at = run.first; at < run.end(); at += 1) {
        if (absent_.insert(at.value()).second && host_free_bytes_ != kUnlimited) {
          host_free_bytes_ += kBlockBytes;
        }
        if (medium_.contains(at.value()) || cache_.contains(at.value())) {
          cache(address_of(at), garbage);
        }
      }
    }
  }
}

std::uint64_t FaultDevice::host_free_bytes() const {
  const std::scoped_lock lock(mutex_);
  return host_free_bytes_;
}

void FaultDevice::crash(std::uint64_t seed) {
  const std::scoped_lock lock(mutex_);
  crash_locked(seed);
}

std::unique_ptr<FaultDevice> FaultDevice::crashed_copy(std::uint64_t seed) const {
  const std::scoped_lock lock(mutex_);
  return std::unique_ptr<FaultDevice>(new FaultDevice(*this, seed));
}

void FaultDevice::crash_locked(std::uint64_t seed) {
  Random random(seed);
  // Crashes differ in kind: from nothing to everything kept, from nothing to most of it torn.
  const std::uint64_t keep_percent = below(random, 5) * 25;
  const std::uint64_t tear_percent = below(random, 4) * 25;
  std::vector<std::size_t> order(unsynced_.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  for (std::size_t left = order.size(); left > 1; --left) {
    std::swap(order[left - 1], order[below(random, left)]);
  }
  const auto keep = [&](PhysAddr at, std::span<const std::byte> data) {
    put(medium_, Image{}, at, data);
  };
  for (const std::size_t index : order) {
    const Unsynced& write = unsynced_[index];
    if (!chance(random, keep_percent)) {
      continue;
    }
    if (chance(random, tear_percent)) {
      put_torn(random, write.at, write.data, keep);
    } else {
      keep(write.at, write.data);
    }
  }
  unsynced_.clear();
  cache_.clear();
  armed_.clear();
  power_left_.reset();
  dead_ = false;
  sync_errno_ = 0;
}

void FaultDevice::arm(const Fault& fault) {
  const std::scoped_lock lock(mutex_);
  armed_.push_back({fault});
}

void FaultDevice::disarm() {
  const std::scoped_lock lock(mutex_);
  armed_.clear();
  if (!dead_) {
    power_left_.reset();
  }
}

void FaultDevice::cut_power_after(std::uint64_t calls) {
  const std::scoped_lock lock(mutex_);
  power_left_ = calls;
}

void FaultDevice::corrupt(BlockNo block, std::size_t byte, std::byte mask) {
  const std::scoped_lock lock(mutex_);
  ODX_CHECK(contains({block, 1}) && byte < kBlockBytes);
  medium_.try_emplace(block.value(), Block{}).first->second[byte] ^= mask;
  if (const auto cached = cache_.find(block.value()); cached != cache_.end()) {
    cached->second[byte] ^= mask;
  }
  const PhysAddr target = address_of(block) + byte;
  for (Unsynced& write : unsynced_) {
    if (write.at <= target && target < write.at + write.data.size()) {
      write.data[target - write.at] ^= mask;
    }
  }
}

std::unique_ptr<BlockDevice> FaultDevice::handle() { return std::make_unique<Handle>(*this); }

std::uint64_t FaultDevice::calls(FaultOp op) const {
  const std::scoped_lock lock(mutex_);
  return calls_[static_cast<std::size_t>(op)];
}

std::size_t FaultDevice::unsynced_writes() const {
  const std::scoped_lock lock(mutex_);
  return unsynced_.size();
}

}  // namespace odx
