// Purpose: the store never holds more of the host than it has use for, and never counts on host
// space that it does not hold.
//
// Growth. The host sets space aside (fallocate) for whole steps: a sixteenth of the limit, within
// bounds. Whoever finds no free block takes the next step, first from holes, then at the end of the
// last segment, then in a new one; if the host has less than a step, what there is. A reserve of
// the host's space is never taken for data, so that journal and metadata can go on.
//
// Holes. The background thread punches free space out of the segments, from the end on, while more
// than two steps are free, until one is left: a store whose data comes and goes keeps what it
// needs. The order is take, punch, declare: a block is taken like any other, so nobody else writes
// it; it was free, so the transaction that freed it is durable and no reader is left; and it comes
// back as a hole, which is no free block but growth that has not happened yet. So the host's
// promise is renewed, for a whole step at once, before any data goes there, and a full host shows
// as ENOSPC when blocks are wanted, not as a failed write. After an open, the host's own map tells
// where the holes are.
//
// Locks: host_mutex is held over all of this, device calls included; nobody who holds the mutation
// lock takes it.
#include "store/host_space.hpp"

#include <algorithm>

#include "base/log.hpp"
#include "store/meta/keys.hpp"
#include "store/mutation.hpp"

namespace odx {

namespace {

constexpr std::uint64_t kLeastStep = (4ULL << 20) / kBlockBytes;
constexpr std::uint64_t kMostStep = (256ULL << 20) / kBlockBytes;
// Growth by less would cost a flush for next to nothing.
constexpr std::uint64_t kLeastGrowth = (1ULL << 20) / kBlockBytes;
// Punched at a time; the writers of a segment wait for the host meanwhile.
constexpr std::uint64_t kPunchBlocks = (16ULL << 20) / kBlockBytes;

// Blocks that are nobody else's; they go back to what they were unless that is settled.
class Taken {
 public:
  enum class From { kFree, kHoles };
  Taken(SpaceMap& space, From from, std::vector<BlockRun> runs)
      : space_(space), from_(from), runs_(std::move(runs)) {}
  Taken(const Taken&) = delete;
  Taken& operator=(const Taken&) = delete;
  ~Taken() { give(from_); }
  [[nodiscard]] const std::vector<BlockRun>& runs() const { return runs_; }
  void become(From what) { from_ = what; }

 private:
  void give(From what) {
    if (what == From::kFree) {
      space_.release(runs_);
    } else {
      space_.make_holes(runs_);
    }
  }
  SpaceMap& space_;
  From from_;
  std::vector<BlockRun> runs_;
};

// The saved bitmaps are of another size from now on.
Result<void> take_clean_mark_back(Core& core) {
  {
    Mutation mutation = ODX_TRY(Mutation::begin(core));
    if (core.clean_mark) {
      mutation.kv().erase(keys::counter("clean"));
      ODX_TRY(mutation.commit());
    }
  }
  return core.meta->wait_durable(core.meta->committed());
}

// Of blocks that are no more, from `end` on.
Result<void> erase_checksums(Core& core, BlockNo end) {
  constexpr std::size_t kAtOnce = 512;
  const std::uint64_t record = (end.value() + keys::kChecksumsPerRecord - 1) /
                               keys::kChecksumsPerRecord * keys::kChecksumsPerRecord;
  const std::string from = keys::checksums(BlockNo(record));
  for (bool more = true; more;) {
    Mutation mutation = ODX_TRY(Mutation::begin(core));
    const auto records =
        ODX_TRY(mutation.kv().scan(from, keys::table_end(keys::kChecksums), kAtOnce));
    more = records.size() == kAtOnce;
    for (const KeyValue& one : records) {
      mutation.kv().erase(one.key);
    }
    ODX_TRY(mutation.commit());
  }
  return core.meta->wait_durable(core.meta->committed());
}

// What space.cut() has taken away already.
Result<void> cut_device(Core& core, BlockNo end) {
  ODX_TRY(erase_checksums(core, end));
  return core.device->cut(end.value());
}

Result<void> write_both(const std::string& dir, Superblock& super) {
  for (int copy = 0; copy < 2; ++copy) {
    ++super.generation;
    ODX_TRY(write_superblock(dir, super));
  }
  return {};
}

}  // namespace

std::uint64_t Core::host_step() const {
  return std::clamp(limit_blocks.load() / 16, kLeastStep, kMostStep);
}

std::uint64_t Core::host_reserve_bytes() const {
  return std::max<std::uint64_t>(limit_blocks.load() / 50 * kBlockBytes, 64ULL << 20);
}

std::uint64_t Core::host_room() const {
  const std::uint64_t host = device->host_free_bytes();
  const std::uint64_t reserve = host_reserve_bytes();
  return host > reserve ? (host - reserve) / kBlockBytes : 0;
}

Result<bool> Core::fill_holes() {
  const std::uint64_t room = std::min(host_step(), host_room());
  if (room < kHoleBlocks) {
    return false;
  }
  Taken taken(space, Taken::From::kHoles, space.take_holes(room));
  if (taken.runs().empty()) {
    return false;
  }
  if (const auto backed = device->back(taken.runs()); !backed) {
    if (backed.error().errno_value() == ENOSPC) {
      return false;
    }
    return std::unexpected(backed.error());
  }
  taken.become(Taken::From::kFree);
  return true;
}

Result<bool> Core::grow(std::uint64_t seen_blocks) {
  const std::lock_guard lock(host_mutex);
  if (ODX_TRY(fill_holes())) {
    return true;
  }
  const std::uint64_t total = device->blocks();
  // Grown when there was no memory to note it.
  if (const std::uint64_t known = space.stats().total_blocks; known < total) {
    space.grow(total - known);
    return true;
  }
  if (total != seen_blocks) {
    return true;  // somebody else was faster
  }
  const std::uint64_t limit = limit_blocks.load();
  if (total >= limit) {
    return false;
  }
  const std::uint64_t room = host_room();
  if (room < std::min(kLeastGrowth, limit - total)) {
    return false;
  }
  const std::uint64_t there = total % kSegmentBlocks;
  const std::uint64_t blocks = std::min({host_step(), kSegmentBlocks - there, limit - total, room});
  const Result<void> grown = there == 0 ? device->add_segment(blocks) : device->extend(blocks);
  if (!grown) {
    if (grown.error().errno_value() == ENOSPC) {
      return false;
    }
    return std::unexpected(grown.error());
  }
  space.grow(blocks);
  return true;
}

bool Core::return_space(ReturnSpace how) {
  if (read_only || !device->can_discard()) {
    return false;
  }
  const std::unique_lock lock(host_mutex, std::try_to_lock);
  if (!lock.owns_lock()) {
    return false;
  }
  const std::uint64_t step = host_step();
  const std::uint64_t free = space.stats().free_blocks;
  const std::uint64_t keep = how == ReturnSpace::kAll ? 0 : step;
  if (how != ReturnSpace::kAll && free > 2 * step) {
    returning_space_ = true;
  }
  if (free < keep + kHoleBlocks || (how != ReturnSpace::kAll && !returning_space_)) {
    returning_space_ = false;
    return false;
  }
  Taken taken(space, Taken::From::kFree, space.take_chunks(std::min(free - keep, kPunchBlocks)));
  if (taken.runs().empty()) {
    return false;
  }
  device->discard(taken.runs());
  if (!device->can_discard()) {
    return false;
  }
  taken.become(Taken::From::kHoles);
  return true;
}

Core::Capacity Core::capacity() const {
  const SpaceStats stats = space.stats();
  const std::uint64_t limit = limit_blocks.load();
  const std::uint64_t growth = limit - std::min(limit, stats.total_blocks) + stats.hole_blocks;
  const std::uint64_t more = std::min(growth, host_room());
  return {(stats.total_blocks - stats.hole_blocks + more) * kBlockBytes,
          (stats.free_blocks + stats.pending_blocks + more) * kBlockBytes,
          stats.pending_blocks * kBlockBytes};
}

ResizeReport size_of(const Core& core) {
  ResizeReport report;
  report.limit = report.limit_before = core.limit_blocks.load() * kBlockBytes;
  report.exists = report.exists_before = core.device->blocks() * kBlockBytes;
  report.least = std::max(kMinStoreBytes, core.space.used_end().value() * kBlockBytes);
  return report;
}

Result<void> resize(Core& core, const std::string& dir, std::uint64_t bytes, ResizeReport& report) {
  const std::lock_guard lock(core.host_mutex);
  report = size_of(core);
  if (core.read_only) {
    return fail(EROFS);
  }
  if (bytes < kMinStoreBytes) {
    return fail(EINVAL, "a store has at least " + std::to_string(kMinStoreBytes >> 20) + " MiB");
  }
  const std::uint64_t blocks = bytes / kBlockBytes;
  if (blocks > kMaxFileBytes / kBlockBytes) {
    return fail(EINVAL, "no store can be that large");
  }
  const std::uint64_t before = core.limit_blocks.load();
  const bool cuts = blocks < core.device->blocks();
  if (cuts) {
    if (core.space.used_end() > BlockNo(blocks)) {
      ODX_TRY(core.hurry_space());
    }
    ODX_TRY(take_clean_mark_back(core));
    if (!core.space.cut(BlockNo(blocks))) {
      report = size_of(core);
      return fail(EBUSY, "blocks behind the new end are in use");
    }
  }
  // Nobody grows the store meanwhile, and nobody gets blocks behind the cut.
  core.limit_blocks.store(blocks);
  Superblock super = core.super;
  super.limit_blocks = blocks;
  Result<void> done = write_both(dir, super);
  core.super.generation = super.generation;
  if (done) {
    core.super.limit_blocks = blocks;
    if (cuts) {
      done = cut_device(core, BlockNo(blocks));
    }
  } else {
    core.limit_blocks.store(before);
  }
  // What there is is usable, whatever failed.
  if (const std::uint64_t known = core.space.stats().total_blocks; core.device->blocks() > known) {
    core.space.grow(core.device->blocks() - known);
  }
  const ResizeReport now = size_of(core);
  report.limit = now.limit;
  report.exists = now.exists;
  report.least = now.least;
  return done;
}

Result<void> settle_host_space(Core& core) {
  if (core.read_only) {
    return {};
  }
  const BlockNo limit(core.limit_blocks.load());
  if (core.device->blocks() > limit.value() && core.space.cut(limit)) {
    // The records say nothing of what was behind it. What cannot be cut is as good as any block.
    if (const auto cut = cut_device(core, limit); !cut) {
      log::error("cutting the store to its limit: {}", cut.error().message());
      core.space.grow(core.device->blocks() - core.space.stats().total_blocks);
    }
  }
  std::vector<BlockRun> chunks;
  for (const BlockRun& hole : core.device->holes()) {
    const std::uint64_t first = round_up(hole.first.value(), kHoleBlocks);
    const std::uint64_t end = round_down(hole.end().value(), kHoleBlocks);
    if (end > first) {
      chunks.push_back({BlockNo(first), end - first});
    }
  }
  core.space.adopt_holes(chunks);
  return {};
}

}  // namespace odx
