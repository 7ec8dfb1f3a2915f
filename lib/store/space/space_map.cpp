// Purpose: decide which blocks new data gets.
//
// Policy. Next-fit: a segment's cursor stands where its last allocation ended, and a search runs
// one lap from there, so streams that take turns get neighbouring blocks and freed space behind
// the cursor gathers into larger runs before it is reached again. Allocation stays in one segment
// while that serves it and moves to the emptiest one when it does not. A request is answered with
// one run if one is found among the next kScanRuns free runs of the current segment, or else of
// the emptiest; otherwise with the longest runs among those that the lap meets, kScanRuns at a
// time. So a call looks at a bounded number of runs beyond those that it takes, however
// fragmented the map, and still takes the last free block if it has to.
//
// Holes are used blocks to the bitmaps, so no search meets them; only saving shows them as free.
//
// Invariants: free_, pending_ and holes_ are the sums over all segments; a pending block is in
// exactly one entry of deferred_, which is ordered by transaction; SegmentBitmap checks every
// change of state.
//
// Memory. Whatever changes the state of blocks has taken the memory for its answer before, or gives
// the blocks back: a std::bad_alloc leaves no block that nobody knows of.
//
// Locking: mutex_ guards everything; nothing else is called under it.
#include "store/space/space_map.hpp"

#include <algorithm>
#include <new>
#include <numeric>

namespace odx {

namespace {

constexpr std::size_t kScanRuns = 256;

void sort_and_merge(std::vector<BlockRun>& runs) {
  std::sort(runs.begin(), runs.end(),
            [](const BlockRun& a, const BlockRun& b) { return a.first < b.first; });
  std::size_t kept = 0;
  for (const BlockRun& run : runs) {
    if (kept > 0 && runs[kept - 1].end() == run.first) {
      runs[kept - 1].count += run.count;
    } else {
      runs[kept++] = run;
    }
  }
  runs.resize(kept);
}

}  // namespace

// Walks the free runs of a segment once round: from its cursor to its end, then from its start
// to the cursor. Blocks may be taken behind the walker's back only where it has been.
class SpaceMap::Lap {
 public:
  explicit Lap(const Segment& segment)
      : map_(&segment.map), start_(segment.cursor), at_(segment.cursor) {}

  // The next free run, cut off at `want` blocks; none at the end of the lap.
  SegmentBitmap::Range next(std::uint64_t want) {
    SegmentBitmap::Range range;
    if (!wrapped_) {
      range = map_->find_free(at_, map_->blocks(), want);
      if (range.count == 0) {
        wrapped_ = true;
        at_ = 0;
      }
    }
    if (wrapped_) {
      range = map_->find_free(at_, start_, want);
    }
    at_ = range.count == 0 ? start_ : range.end();
    return range;
  }

 private:
  const SegmentBitmap* map_;
  std::uint64_t start_;
  std::uint64_t at_;
  bool wrapped_ = false;
};

void SpaceMap::add_segment(std::uint64_t blocks) {
  ODX_CHECK(blocks > 0 && blocks <= kSegmentBlocks);
  const std::scoped_lock lock(mutex_);
  segments_.push_back({BlockNo(total_), SegmentBitmap(blocks)});
  total_ += blocks;
  free_ += blocks;
}

void SpaceMap::grow(std::uint64_t blocks) {
  const std::scoped_lock lock(mutex_);
  if (!segments_.empty()) {
    Segment& last = segments_.back();
    const std::uint64_t here = std::min(blocks, kSegmentBlocks - last.map.blocks());
    if (here > 0) {
      last.map.resize(last.map.blocks() + here);
      if (!last.holes.empty()) {
        last.holes.resize((last.map.blocks() + kHoleBlocks - 1) / kHoleBlocks);
      }
      total_ += here;
      free_ += here;
      blocks -= here;
    }
  }
  while (blocks > 0) {
    const std::uint64_t here = std::min(blocks, kSegmentBlocks);
    segments_.push_back({BlockNo(total_), SegmentBitmap(here)});
    total_ += here;
    free_ += here;
    blocks -= here;
  }
}

BlockNo SpaceMap::used_end() const {
  const std::scoped_lock lock(mutex_);
  return used_end_locked();
}

BlockNo SpaceMap::used_end_locked() const {
  for (std::size_t i = segments_.size(); i-- > 0;) {
    const Segment& segment = segments_[i];
    if (segment.map.free_blocks() == segment.map.blocks()) {
      continue;
    }
    // Upwards, because the bitmap looks that way; a segment is small.
    std::uint64_t end = 0;
    for (std::uint64_t at = 0; at < segment.map.blocks(); ++at) {
      if (!segment.is_hole(at) && !segment.map.is_free(at)) {
        end = at + 1;
      }
    }
    if (end > 0) {
      return segment.first + end;
    }
  }
  return BlockNo(0);
}

bool SpaceMap::cut(BlockNo end) {
  const std::scoped_lock lock(mutex_);
  if (used_end_locked() > end) {
    return false;
  }
  while (total_ > end.value()) {
    Segment& last = segments_.back();
    const std::uint64_t keep = end > last.first ? end - last.first : 0;
    const std::uint64_t before = last.map.blocks();
    // A chunk that the new end parts cannot be a hole.
    const std::uint64_t first_cut = round_down(keep, kHoleBlocks);
    for (std::uint64_t at = first_cut; at < before && !last.holes.empty(); at += kHoleBlocks) {
      if (last.holes[at / kHoleBlocks]) {
        set_holes(last, {at, kHoleBlocks}, false);
        last.map.free({at, kHoleBlocks});
        free_ += kHoleBlocks;
      }
    }
    total_ -= before - keep;
    free_ -= before - keep;
    if (keep == 0) {
      segments_.pop_back();
    } else {
      last.map.resize(keep);
      last.cursor = std::min(last.cursor, keep);
    }
  }
  current_ = std::min(current_, segments_.empty() ? 0 : segments_.size() - 1);
  return true;
}

std::size_t SpaceMap::segment_of(BlockNo block) const {
  const auto behind =
      std::upper_bound(segments_.begin(), segments_.end(), block,
                       [](BlockNo at, const Segment& segment) { return at < segment.first; });
  return static_cast<std::size_t>(behind - segments_.begin()) - 1;
}

bool SpaceMap::contains(BlockRun run) const {
  return run.first.value() <= total_ && run.count <= total_ - run.first.value();
}

// Calls visit(segment, range) for each segment that the run, which must exist, touches.
template <class Visit>
void SpaceMap::for_each_piece(BlockRun run, Visit visit) {
  BlockNo at = run.first;
  while (at < run.end()) {
    Segment& segment = segments_[segment_of(at)];
    const std::uint64_t index = at - segment.first;
    const std::uint64_t count = std::min(segment.map.blocks() - index, run.end() - at);
    visit(segment, SegmentBitmap::Range{index, count});
    at += count;
  }
}

Result<void> SpaceMap::mark_used(BlockRun run) {
  const std::scoped_lock lock(mutex_);
  if (!contains(run)) {
    return corrupt("blocks " + std::to_string(run.first.value()) + "+" + std::to_string(run.count) +
                   " are outside of the store");
  }
  for_each_piece(run, [&](Segment& segment, SegmentBitmap::Range range) {
    free_ -= segment.map.mark_used(range);
  });
  return {};
}

Result<void> SpaceMap::allocate(std::uint64_t count, std::uint64_t keep_free,
                                std::vector<BlockRun>& runs_out) {
  std::vector<BlockRun> taken;
  try {
    {
      const std::scoped_lock lock(mutex_);
      if (keep_free > free_ || count > free_ - keep_free) {
        return fail(ENOSPC, "no free blocks");
      }
      if (!take_one_run(count, taken)) {
        take_pieces(count, taken);
      }
    }
    sort_and_merge(taken);
    runs_out.insert(runs_out.end(), taken.begin(), taken.end());
  } catch (const std::bad_alloc&) {
    release(taken);
    throw;
  }
  return {};
}

std::size_t SpaceMap::emptiest_segment() const {
  const auto emptiest = std::max_element(
      segments_.begin(), segments_.end(),
      [](const Segment& a, const Segment& b) { return a.map.free_blocks() < b.map.free_blocks(); });
  return static_cast<std::size_t>(emptiest - segments_.begin());
}

void SpaceMap::take(std::size_t index, SegmentBitmap::Range range,
                    std::vector<BlockRun>& runs_out) {
  Segment& segment = segments_[index];
  runs_out.push_back({segment.first + range.first, range.count});
  segment.map.use(range);
  segment.cursor = range.end();
  free_ -= range.count;
  current_ = index;
}

// All of `count` from one run that is near a cursor, or nothing.
bool SpaceMap::take_one_run(std::uint64_t count, std::vector<BlockRun>& runs_out) {
  const auto take_from = [&](std::size_t index) {
    if (segments_[index].map.free_blocks() < count) {
      return false;
    }
    Lap lap(segments_[index]);
    for (std::size_t scanned = 0; scanned < kScanRuns; ++scanned) {
      const SegmentBitmap::Range range = lap.next(count);
      if (range.count == 0) {
        return false;
      }
      if (range.count == count) {
        take(index, range, runs_out);
        return true;
      }
    }
    return false;
  };
  if (count == 0 || take_from(current_)) {
    return true;
  }
  const std::size_t emptiest = emptiest_segment();
  return emptiest != current_ && take_from(emptiest);
}

// `count` blocks, which are free, from wherever they are.
void SpaceMap::take_pieces(std::uint64_t count, std::vector<BlockRun>& runs_out) {
  std::size_t index = current_;
  while (count > 0) {
    if (segments_[index].map.free_blocks() == 0) {
      index = emptiest_segment();
    }
    const std::uint64_t taken = take_pieces_of(index, count, runs_out);
    ODX_CHECK(taken > 0);
    count -= taken;
  }
}

// Up to `count` blocks of one segment; fewer only if it has no more. Returns how many.
std::uint64_t SpaceMap::take_pieces_of(std::size_t index, std::uint64_t count,
                                       std::vector<BlockRun>& runs_out) {
  std::uint64_t missing = count;
  Lap lap(segments_[index]);
  std::vector<SegmentBitmap::Range> seen;
  std::vector<std::size_t> longest_first;
  while (missing > 0) {
    seen.clear();
    std::uint64_t seen_blocks = 0;
    while (seen.size() < kScanRuns) {
      const SegmentBitmap::Range range = lap.next(missing);
      if (range.count == 0) {
        break;
      }
      seen.push_back(range);
      seen_blocks += range.count;
    }
    if (seen.empty()) {
      break;
    }
    if (seen_blocks > missing) {
      longest_first.resize(seen.size());
      std::iota(longest_first.begin(), longest_first.end(), std::size_t{0});
      std::sort(longest_first.begin(), longest_first.end(), [&](std::size_t a, std::size_t b) {
        return seen[a].count != seen[b].count ? seen[a].count > seen[b].count : a < b;
      });
      std::uint64_t left = missing;
      for (const std::size_t i : longest_first) {
        seen[i].count = std::min(seen[i].count, left);
        left -= seen[i].count;
      }
    }
    // In the lap's order again, so that the cursor ends where the lap has been last.
    for (const SegmentBitmap::Range& range : seen) {
      if (range.count > 0) {
        take(index, range, runs_out);
        missing -= range.count;
      }
    }
  }
  return count - missing;
}

void SpaceMap::release(std::span<const BlockRun> runs) {
  const std::scoped_lock lock(mutex_);
  for (const BlockRun& run : runs) {
    ODX_CHECK(contains(run));
    for_each_piece(run, [&](Segment& segment, SegmentBitmap::Range range) {
      if (segment.map.all_used(range)) {
        segment.map.free(range);
        free_ += range.count;
      }
    });
  }
}

Result<void> SpaceMap::check_used(std::span<const BlockRun> runs) const {
  std::vector<BlockRun> sorted(runs.begin(), runs.end());
  std::erase_if(sorted, [](const BlockRun& run) { return run.count == 0; });
  std::sort(sorted.begin(), sorted.end(),
            [](const BlockRun& a, const BlockRun& b) { return a.first < b.first; });
  const std::scoped_lock lock(mutex_);
  BlockNo seen{0};
  for (const BlockRun& run : sorted) {
    bool used = contains(run) && run.first >= seen;
    for (BlockNo at = run.first; used && at < run.end();) {
      const Segment& segment = segments_[segment_of(at)];
      const std::uint64_t index = at - segment.first;
      const std::uint64_t count = std::min(segment.map.blocks() - index, run.end() - at);
      used = segment.map.all_used({index, count});
      at += count;
    }
    if (!used) {
      return corrupt("blocks " + std::to_string(run.first.value()) + "+" +
                     std::to_string(run.count) + " are to be freed, but are not in use");
    }
    seen = run.end();
  }
  return {};
}

SpaceMap::Deferral SpaceMap::prepare(std::span<const BlockRun> runs) {
  Deferral prepared;
  for (const BlockRun& run : runs) {
    if (run.count > 0) {
      prepared.queue_.push_back({TxnSeq(), run});
    }
  }
  return prepared;
}

void SpaceMap::defer(TxnSeq seq, Deferral prepared) noexcept {
  const std::scoped_lock lock(mutex_);
  ODX_CHECK(deferred_.empty() || deferred_.back().seq <= seq);
  for (Deferred& one : prepared.queue_) {
    ODX_CHECK(contains(one.run));
    one.seq = seq;
    for_each_piece(one.run,
                   [](Segment& segment, SegmentBitmap::Range range) { segment.map.defer(range); });
    pending_ += one.run.count;
  }
  deferred_.splice(deferred_.end(), prepared.queue_);
}

void SpaceMap::defer(TxnSeq seq, std::span<const BlockRun> runs) { defer(seq, prepare(runs)); }

std::vector<BlockRun> SpaceMap::settle(TxnSeq seq) {
  Queue settled;
  {
    const std::scoped_lock lock(mutex_);
    const auto end = std::find_if(deferred_.begin(), deferred_.end(),
                                  [&](const Deferred& one) { return one.seq > seq; });
    settled.splice(settled.end(), deferred_, deferred_.begin(), end);
    for (const Deferred& one : settled) {
      for_each_piece(
          one.run, [](Segment& segment, SegmentBitmap::Range range) { segment.map.settle(range); });
      pending_ -= one.run.count;
      free_ += one.run.count;
    }
  }
  std::vector<BlockRun> freed;
  freed.reserve(settled.size());
  for (const Deferred& one : settled) {
    freed.push_back(one.run);
  }
  sort_and_merge(freed);
  return freed;
}

std::vector<BlockRun> SpaceMap::take_free(std::span<const BlockRun> runs) {
  std::vector<BlockRun> taken;
  try {
    const std::scoped_lock lock(mutex_);
    for (const BlockRun& run : runs) {
      ODX_CHECK(contains(run));
      for_each_piece(run, [&](Segment& segment, SegmentBitmap::Range range) {
        std::uint64_t at = range.first;
        while (true) {
          const SegmentBitmap::Range free = segment.map.find_free(at, range.end(), range.count);
          if (free.count == 0) {
            break;
          }
          taken.push_back({segment.first + free.first, free.count});
          segment.map.use(free);
          free_ -= free.count;
          at = free.end();
        }
      });
    }
  } catch (const std::bad_alloc&) {
    release(taken);
    throw;
  }
  sort_and_merge(taken);
  return taken;
}

void SpaceMap::set_holes(Segment& segment, SegmentBitmap::Range range, bool hole) {
  segment.holes.resize((segment.map.blocks() + kHoleBlocks - 1) / kHoleBlocks);
  ODX_CHECK(range.first % kHoleBlocks == 0 && range.count % kHoleBlocks == 0);
  for (std::uint64_t at = range.first; at < range.end(); at += kHoleBlocks) {
    ODX_CHECK(segment.holes[at / kHoleBlocks] != hole);
    segment.holes[at / kHoleBlocks] = hole;
  }
  holes_ = hole ? holes_ + range.count : holes_ - range.count;
}

std::vector<BlockRun> SpaceMap::take_chunks(std::uint64_t most) {
  constexpr std::uint64_t kMostChunks = 1ULL << 16;  // 4 GiB: a few milliseconds at worst
  std::vector<BlockRun> taken;
  {
    const std::scoped_lock lock(mutex_);
    if (chunks_before_.value() == 0 || chunks_before_.value() > total_) {
      chunks_before_ = BlockNo(total_);
    }
    std::uint64_t left = most;
    for (std::uint64_t looked = 0; looked < kMostChunks && left >= kHoleBlocks; ++looked) {
      if (chunks_before_.value() == 0) {
        break;
      }
      Segment& segment = segments_[segment_of(BlockNo(chunks_before_.value() - 1))];
      const std::uint64_t at = round_down(chunks_before_ - segment.first - 1, kHoleBlocks);
      const bool whole = at + kHoleBlocks <= segment.map.blocks();
      chunks_before_ = segment.first + at;
      if (whole && segment.map.find_free(at, at + kHoleBlocks, kHoleBlocks).count == kHoleBlocks) {
        segment.map.use({at, kHoleBlocks});
        free_ -= kHoleBlocks;
        left -= kHoleBlocks;
        taken.push_back({segment.first + at, kHoleBlocks});
      }
    }
  }
  sort_and_merge(taken);
  return taken;
}

void SpaceMap::make_holes(std::span<const BlockRun> runs) {
  const std::scoped_lock lock(mutex_);
  for (const BlockRun& run : runs) {
    ODX_CHECK(contains(run));
    for_each_piece(run, [&](Segment& segment, SegmentBitmap::Range range) {
      set_holes(segment, range, true);
    });
  }
}

void SpaceMap::adopt_holes(std::span<const BlockRun> runs) {
  const std::scoped_lock lock(mutex_);
  for (const BlockRun& run : runs) {
    if (!contains(run)) {
      continue;
    }
    for_each_piece(run, [&](Segment& segment, SegmentBitmap::Range range) {
      for (std::uint64_t at = range.first; at < range.end(); at += kHoleBlocks) {
        if (segment.map.find_free(at, at + kHoleBlocks, kHoleBlocks).count == kHoleBlocks) {
          segment.map.use({at, kHoleBlocks});
          free_ -= kHoleBlocks;
          set_holes(segment, {at, kHoleBlocks}, true);
        }
      }
    });
  }
}

std::vector<BlockRun> SpaceMap::take_holes(std::uint64_t most) {
  std::vector<BlockRun> taken;
  {
    const std::scoped_lock lock(mutex_);
    std::uint64_t left = std::max(most, kHoleBlocks);
    for (Segment& segment : segments_) {
      if (left < kHoleBlocks || holes_ == 0) {
        break;
      }
      for (std::size_t i = 0; i < segment.holes.size() && left >= kHoleBlocks; ++i) {
        if (segment.holes[i]) {
          const SegmentBitmap::Range chunk{i * kHoleBlocks, kHoleBlocks};
          set_holes(segment, chunk, false);
          left -= kHoleBlocks;
          taken.push_back({segment.first + chunk.first, chunk.count});
        }
      }
    }
  }
  sort_and_merge(taken);
  return taken;
}

SpaceStats SpaceMap::stats() const {
  const std::scoped_lock lock(mutex_);
  return {.total_blocks = total_,
          .free_blocks = free_,
          .pending_blocks = pending_,
          .hole_blocks = holes_};
}

bool SpaceMap::is_free(BlockNo block) const {
  const std::scoped_lock lock(mutex_);
  if (block.value() >= total_) {
    return false;
  }
  const Segment& segment = segments_[segment_of(block)];
  return segment.map.is_free(block - segment.first);
}

std::size_t SpaceMap::segments() const {
  const std::scoped_lock lock(mutex_);
  return segments_.size();
}

std::string SpaceMap::save_segment(std::size_t index) const {
  const std::scoped_lock lock(mutex_);
  ODX_CHECK(index < segments_.size());
  const Segment& segment = segments_[index];
  if (std::find(segment.holes.begin(), segment.holes.end(), true) == segment.holes.end()) {
    return segment.map.save();
  }
  SegmentBitmap map = segment.map;
  for (std::size_t i = 0; i < segment.holes.size(); ++i) {
    if (segment.holes[i]) {
      map.free({i * kHoleBlocks, kHoleBlocks});
    }
  }
  return map.save();
}

Result<void> SpaceMap::load_segment(std::size_t index, std::string_view bitmap) {
  const std::scoped_lock lock(mutex_);
  if (index >= segments_.size()) {
    return corrupt("free-space bitmap of a segment that does not exist");
  }
  SegmentBitmap& map = segments_[index].map;
  const std::uint64_t before = map.free_blocks();
  ODX_TRY(map.load(bitmap));
  free_ = free_ - before + map.free_blocks();
  return {};
}

BlockRun SpaceMap::find_used(BlockNo from, std::uint64_t most) const {
  const std::scoped_lock lock(mutex_);
  if (from.value() >= total_) {
    return {from, 0};
  }
  for (std::size_t index = segment_of(from); index < segments_.size(); ++index) {
    const Segment& segment = segments_[index];
    const std::uint64_t blocks = segment.map.blocks();
    std::uint64_t first = from > segment.first ? from - segment.first : 0;
    for (first = segment.map.find_used(first, blocks); first < blocks && segment.is_hole(first);) {
      first = segment.map.find_used(round_down(first, kHoleBlocks) + kHoleBlocks, blocks);
    }
    if (first >= blocks) {
      continue;
    }
    const std::uint64_t limit = std::min(blocks, first + most);
    const SegmentBitmap::Range free = segment.map.find_free(first, limit, 1);
    std::uint64_t end = free.count == 0 ? limit : free.first;
    for (std::uint64_t chunk = round_down(first, kHoleBlocks) + kHoleBlocks; chunk < end;
         chunk += kHoleBlocks) {
      if (segment.is_hole(chunk)) {
        end = chunk;
      }
    }
    return {segment.first + first, end - first};
  }
  return {from, 0};
}

std::uint64_t SpaceMap::used_from(BlockNo from) const {
  const std::scoped_lock lock(mutex_);
  std::uint64_t used = 0;
  for (const Segment& segment : segments_) {
    const std::uint64_t first = from > segment.first ? from - segment.first : 0;
    if (first >= segment.map.blocks()) {
      continue;
    }
    used += segment.map.used_from(first);
    for (std::size_t i = first / kHoleBlocks; i < segment.holes.size(); ++i) {
      // Nobody asks from the middle of a hole on, but for what was not one a moment ago.
      used -= segment.holes[i] ? (i + 1) * kHoleBlocks - std::max(first, i * kHoleBlocks) : 0;
    }
  }
  return used;
}

}  // namespace odx
