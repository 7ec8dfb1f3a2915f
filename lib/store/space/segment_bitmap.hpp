// The free and used blocks of one segment, by index from its start.
//
// Two levels: one bit per block, and a count of free blocks per group of 4096, so that a search
// passes over a full group in one step and over a full word in another. A second bitmap marks the
// used blocks that are pending; it lets a double free be caught where it happens.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"

namespace odx {

// Not thread-safe. Ranges given to it must lie inside of the segment.
class SegmentBitmap {
 public:
  struct Range {
    std::uint64_t first = 0;
    std::uint64_t count = 0;  // 0: none
    [[nodiscard]] std::uint64_t end() const { return first + count; }
  };

  // All free.
  explicit SegmentBitmap(std::uint64_t blocks);

  [[nodiscard]] std::uint64_t blocks() const { return blocks_; }
  [[nodiscard]] std::uint64_t free_blocks() const { return free_; }
  [[nodiscard]] bool is_free(std::uint64_t index) const;

  // The first free run at or after `from`, cut off at `limit` (at most blocks()) and at `want`
  // blocks.
  [[nodiscard]] Range find_free(std::uint64_t from, std::uint64_t limit, std::uint64_t want) const;

  // The first used block at or after `from`, or `limit`.
  [[nodiscard]] std::uint64_t find_used(std::uint64_t from, std::uint64_t limit) const;

  // Used blocks at or after `from`.
  [[nodiscard]] std::uint64_t used_from(std::uint64_t from) const;
  // Makes the segment longer, by free blocks, or shorter: the blocks cut off must not be pending.
  void resize(std::uint64_t blocks);

  // Whatever they are, they are used afterwards. Returns how many were free.
  std::uint64_t mark_used(Range range);

  // Whether all of the range is used and nothing of it pending.
  [[nodiscard]] bool all_used(Range range) const;

  // Moves whole ranges from one state to another. A block that is not in the first state is a
  // broken invariant.
  void use(Range free_range);        // free -> used
  void free(Range used_range);       // used, not pending -> free
  void defer(Range used_range);      // used, not pending -> pending
  void settle(Range pending_range);  // pending -> free

  // Bit n of byte n / 8 is set if block n is not free. load() replaces everything and must not be
  // called while blocks are pending; it fails with corruption if the size is wrong or a bit behind
  // the last block is set.
  [[nodiscard]] std::string save() const;
  Result<void> load(std::string_view bitmap);

 private:
  void give_back(std::uint64_t word, std::uint64_t mask);

  std::uint64_t blocks_;
  std::uint64_t free_;
  std::uint64_t pending_ = 0;
  // Bits behind the last block are set in used_, so no search ever finds them.
  std::vector<std::uint64_t> used_;
  std::vector<std::uint64_t> pending_bits_;
  std::vector<std::uint16_t> free_in_group_;
};

}  // namespace odx
