// Recounts the blocks: which are in use, how many leaf entries name each, and whether reference
// counts, checksums, saved bitmaps and the data itself agree.
#pragma once

#include <string>
#include <vector>

#include "store/check/findings.hpp"
#include "store/extent/tree.hpp"

namespace odx::check {

class SpaceCheck {
 public:
  SpaceCheck(const CheckSubject& subject, Findings& findings)
      : subject_(subject), findings_(findings) {}

  // An entry of a distinct leaf. `owner` is how to call the leaf.
  void see_extent(const TreeEntry& extent, const std::string& owner);

  // The same entry as the other count of references meets it.
  void walk_extent(const TreeEntry& extent);
  // The last block that any extent names, and one.
  [[nodiscard]] std::uint64_t end_of_extents() const { return end_of_extents_; }

  // When all extents are seen; first.
  Result<void> compare_references();
  // After that, in any order.
  Result<void> compare_checksums();
  Result<void> compare_bitmaps();
  // Answers with the blocks that cannot be read or do not match, ascending.
  Result<std::vector<std::uint64_t>> verify_data();

 private:
  struct Reference {
    BlockRun run;
    std::uint64_t refs = 0;
  };
  Result<std::vector<Reference>> read_references();
  // Appends blocks [first, end) to counts that are kept as table R keeps them.
  static void add_count(std::vector<Reference>& counts, std::uint64_t first, std::uint64_t end,
                        std::uint64_t refs);
  Result<void> fix_references(const std::vector<Reference>& counts);
  void compare_bitmap(std::uint64_t segment, std::string_view saved);
  void drop_mark();
  Result<void> verify_run(BlockRun run);
  Result<void> verify_block(BlockNo block, const std::byte* data);

  const CheckSubject& subject_;
  Findings& findings_;
  // The first block of every extent, and the one behind its last: 16 bytes for each extent.
  std::vector<std::uint64_t> starts_;
  std::vector<std::uint64_t> ends_;
  std::vector<BlockRun> used_;  // ascending, neighbours merged
  std::uint64_t end_of_extents_ = 0;
  // Of the walk: the sum of a number for the first block of every extent, less that of the block
  // behind it. It depends on nothing but how often each block is named.
  std::uint64_t walked_ = 0;
  bool references_wrong_ = false;

  // For verify_data().
  std::vector<std::uint64_t> damaged_;
  std::string crcs_;  // the checksum record read last; empty if it is missing
  std::uint64_t crcs_group_ = UINT64_MAX;
};

}  // namespace odx::check
