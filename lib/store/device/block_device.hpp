// The data part of a store as one line of 4 KiB blocks.
//
// The interface is the seam where tests put a device that forgets, tears and fails.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/result.hpp"
#include "base/types.hpp"

namespace odx {

// `data` is page-aligned and holds run.count whole blocks.
struct BlockRead {
  BlockRun run;
  std::byte* data;
};
struct BlockWrite {
  BlockRun run;
  const std::byte* data;
};

// All calls may be made from any thread at once. Runs may cross segment boundaries.
class BlockDevice {
 public:
  virtual ~BlockDevice() = default;

  // Blocks that exist now.
  [[nodiscard]] virtual std::uint64_t blocks() const = 0;

  // Returns when all runs are read (or written into the device's volatile cache). The whole call
  // fails if any part does; what the buffers (or blocks) then hold is undefined.
  virtual Result<void> read(std::span<const BlockRead> runs) = 0;
  virtual Result<void> write(std::span<const BlockWrite> runs) = 0;

  // Makes every write that returned before this call durable. What a failed sync lost is unknown,
  // so after one all later syncs of this object fail too.
  virtual Result<void> sync() = 0;

  // Adds one segment of `blocks` (at most kSegmentBlocks; only the last segment of a store may be
  // shorter) with its space reserved on the host, durable on return. ENOSPC if the host lacks it.
  virtual Result<void> add_segment(std::uint64_t blocks) = 0;

  // Makes the last segment, which is shorter than kSegmentBlocks, that much longer; the rest as
  // add_segment.
  virtual Result<void> extend(std::uint64_t /*blocks*/) {
    return fail(EOPNOTSUPP, "this device's segments cannot grow");
  }

  // Takes all blocks from `blocks` on away, durable on return. Nobody may use them any more. After
  // an error blocks() says how many are left.
  virtual Result<void> cut(std::uint64_t /*blocks*/) {
    return fail(EOPNOTSUPP, "this device cannot be cut");
  }

  // Gives the host its space back (hole punching); the blocks' contents become undefined. Nobody
  // may use the blocks meanwhile (SpaceMap::take_free).
  // Best effort: where the host can't, it does nothing.
  virtual void discard(std::span<const BlockRun> runs) = 0;

  // False once it is known that discard() does nothing.
  [[nodiscard]] virtual bool can_discard() const { return false; }

  // Has the host set space aside for blocks that were discarded. ENOSPC if it lacks it.
  virtual Result<void> back(std::span<const BlockRun> /*runs*/) { return {}; }

  // Blocks for which the host holds no space, as far as it tells: discarded ones of earlier opens.
  virtual std::vector<BlockRun> holes() { return {}; }

  // Host bytes that new segments could still take.
  [[nodiscard]] virtual std::uint64_t host_free_bytes() const = 0;
};

}  // namespace odx
