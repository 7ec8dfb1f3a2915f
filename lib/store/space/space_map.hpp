// Which blocks are free: one bitmap per segment, in memory.
//
// A block is in exactly one of three states: free; used; or freed but not reusable yet, because
// the transaction that freed it may still be undone by a crash or a reader may still hold a
// snapshot that names it. Only free blocks are handed out.
//
// Free blocks that the host holds no space for are holes: as good as blocks that do not exist yet.
// They come in whole chunks of kHoleBlocks and become free again once the host has set space aside.
//
// Which blocks a transaction frees follows from records, which may be damaged: check_used() tells
// whether it may, and nothing is ever freed twice.
#pragma once

#include <cstdint>
#include <list>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "base/types.hpp"
#include "store/space/segment_bitmap.hpp"

namespace odx {

inline constexpr std::uint64_t kHoleBlocks = 16;

struct SpaceStats {
  std::uint64_t total_blocks = 0;    // in segments that exist
  std::uint64_t free_blocks = 0;     // allocatable now
  std::uint64_t pending_blocks = 0;  // freed, not reusable yet
  std::uint64_t hole_blocks = 0;     // free, but the host has to set space aside first
};

// Thread-safe; its mutex is a leaf lock and no I/O happens under it.
class SpaceMap {
 public:
  // Adds a segment (1 to kSegmentBlocks blocks) behind the last one; its blocks are all free.
  void add_segment(std::uint64_t blocks);

  // `blocks` more at the end, all free: the last segment becomes longer until it is full, others
  // follow it.
  void grow(std::uint64_t blocks);
  // Takes all blocks from `end` on away, if none of them is used or pending. False: one is.
  bool cut(BlockNo end);
  // Behind the last block that is used or pending.
  [[nodiscard]] BlockNo used_end() const;

  // For rebuilding at mount. Idempotent; a run outside of the segments is corruption.
  Result<void> mark_used(BlockRun run);

  // `count` blocks in as few runs as can be found quickly, all or nothing (ENOSPC). Blocks of one
  // call ascend where possible; streams that call one after another get neighbouring blocks.
  // Leaves at least `keep_free` blocks free. Appends to `runs_out`, in ascending order and never
  // touching each other; after an error it is as it was.
  Result<void> allocate(std::uint64_t count, std::uint64_t keep_free,
                        std::vector<BlockRun>& runs_out);

  // Undoes an allocation that no committed transaction names: free at once. What a damaged tree has
  // freed behind the caller's back stays as it is.
  void release(std::span<const BlockRun> runs);

  // Corruption if a block of these runs is not in use, or in two of them.
  [[nodiscard]] Result<void> check_used(std::span<const BlockRun> runs) const;

  // Blocks whose last reference transaction `seq` dropped (numbers do not decrease). They become
  // free by settle(). In two steps for whoever cannot turn back between the two: all the memory is
  // taken by prepare().
  class Deferral;
  [[nodiscard]] static Deferral prepare(std::span<const BlockRun> runs);
  void defer(TxnSeq seq, Deferral prepared) noexcept;
  void defer(TxnSeq seq, std::span<const BlockRun> runs);

  // Frees everything deferred by transactions up to `seq`: durable, and older than any reader.
  // Returns the freed runs (sorted, merged). They can be handed out again at once, so they must
  // not be discarded on the host just like that: see take_chunks.
  std::vector<BlockRun> settle(TxnSeq seq);

  // Allocates those blocks of `runs` that are still free, for discarding them on the host: nobody
  // else gets them until release(). Returns them sorted and merged.
  std::vector<BlockRun> take_free(std::span<const BlockRun> runs);

  // The same for up to `most` blocks from anywhere, in whole chunks: those that the next
  // allocations are least likely to want. Goes on where the last call ended, and looks at a bounded
  // part of the map; none: there is nothing in that part. make_holes() or release() must follow.
  std::vector<BlockRun> take_chunks(std::uint64_t most);
  // Blocks that take_chunks or take_free gave, whole chunks, are holes from now on.
  void make_holes(std::span<const BlockRun> runs);
  // Those of these chunks that are wholly free are holes from now on.
  void adopt_holes(std::span<const BlockRun> runs);
  // Up to `most` blocks (at least one chunk, if there is any) stop being holes: they are the
  // caller's until make_holes() or release().
  std::vector<BlockRun> take_holes(std::uint64_t most);

  [[nodiscard]] SpaceStats stats() const;
  [[nodiscard]] bool is_free(BlockNo block) const;

  // The first run of blocks at or behind `from` that are not free, at most `most` of them; none
  // (count 0) behind the last. A run ends where its segment does.
  [[nodiscard]] BlockRun find_used(BlockNo from, std::uint64_t most) const;
  // Blocks at or behind `from` that are not free.
  [[nodiscard]] std::uint64_t used_from(BlockNo from) const;

  // One segment's bitmap (bit set = used, pending counts as used), for saving at clean unmount;
  // and back: bit n of byte n / 8 is the segment's block n. load replaces the segment's state,
  // before anything of it has been deferred; it fails with corruption if the size is wrong.
  [[nodiscard]] std::size_t segments() const;
  [[nodiscard]] std::string save_segment(std::size_t index) const;
  Result<void> load_segment(std::size_t index, std::string_view bitmap);

 private:
  struct Segment {
    BlockNo first;
    SegmentBitmap map;
    std::uint64_t cursor = 0;   // next-fit position: where the last allocation here ended
    std::vector<bool> holes{};  // by chunk; empty: none
    [[nodiscard]] bool is_hole(std::uint64_t index) const {
      return !holes.empty() && holes[index / kHoleBlocks];
    }
  };
  struct Deferred {
    TxnSeq seq;
    BlockRun run;
  };
  using Queue = std::list<Deferred>;
  class Lap;

  [[nodiscard]] std::size_t segment_of(BlockNo block) const;
  [[nodiscard]] bool contains(BlockRun run) const;
  [[nodiscard]] std::size_t emptiest_segment() const;
  template <class Visit>
  void for_each_piece(BlockRun run, Visit visit);
  void set_holes(Segment& segment, SegmentBitmap::Range range, bool hole);
  [[nodiscard]] BlockNo used_end_locked() const;
  void take(std::size_t index, SegmentBitmap::Range range, std::vector<BlockRun>& runs_out);
  bool take_one_run(std::uint64_t count, std::vector<BlockRun>& runs_out);
  void take_pieces(std::uint64_t count, std::vector<BlockRun>& runs_out);
  std::uint64_t take_pieces_of(std::size_t index, std::uint64_t count,
                               std::vector<BlockRun>& runs_out);

  mutable std::mutex mutex_;
  std::vector<Segment> segments_;
  Queue deferred_;
  std::uint64_t total_ = 0;
  std::uint64_t free_ = 0;
  std::uint64_t pending_ = 0;
  std::uint64_t holes_ = 0;
  std::size_t current_ = 0;  // segment that the last allocation came from
  BlockNo chunks_before_;    // where take_chunks goes on, downwards
};

class SpaceMap::Deferral {
  friend class SpaceMap;
  Queue queue_;
};

}  // namespace odx
