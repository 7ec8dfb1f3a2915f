// File bytes to and from the device: extents in, verified bytes out; bytes in, checksummed blocks
// out. No lock is held here.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/result.hpp"
#include "base/types.hpp"
#include "store/core.hpp"
#include "store/extent/tree_reader.hpp"

namespace odx {

// Reads `extents`, which cover `into` from its first byte on without a gap. Every block is
// verified against its checksum. Whole blocks that meet aligned memory are read in place; of the
// block that the last extent ends in, the rest may land behind it in `into`.
Result<void> read_extents(Core& core, std::span<const MappedExtent> extents,
                          std::span<std::byte> into);

// Blocks that belong to no committed state yet: given back unless kept.
class FreshBlocks {
 public:
  explicit FreshBlocks(Core& core) : core_(core) {}
  FreshBlocks(const FreshBlocks&) = delete;
  FreshBlocks& operator=(const FreshBlocks&) = delete;
  ~FreshBlocks() { core_.space.release(runs_); }

  Result<void> allocate(std::uint64_t blocks) { return core_.allocate(blocks, runs_); }
  [[nodiscard]] const std::vector<BlockRun>& runs() const { return runs_; }
  // A committed transaction names them now.
  void keep() { runs_.clear(); }

 private:
  Core& core_;
  std::vector<BlockRun> runs_;
};

// Writes whole blocks into `runs` in order: first those of `body`, then those of `tail` (either
// may be empty; both page-aligned). Puts the checksums of all of them into `crcs`.
Result<void> write_blocks(Core& core, std::span<const BlockRun> runs,
                          std::span<const std::byte> body, std::span<const std::byte> tail,
                          std::vector<std::uint32_t>& crcs);

}  // namespace odx
