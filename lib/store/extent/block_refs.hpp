// How many leaf entries name a block: table `R`, runs of blocks with equally many references, only
// where there are two or more. A used block without a record has one.
#pragma once

#include <cstdint>
#include <vector>

#include "base/result.hpp"
#include "base/types.hpp"
#include "store/meta/kv.hpp"

namespace odx {

// Changes counts in the overlay it was made with. One thread.
class BlockRefs {
 public:
  explicit BlockRefs(KvOverlay& kv) : kv_(kv) {}

  // One reference more (less) on every block of the run. A block whose last reference goes is
  // listed in freed().
  Result<void> add(BlockRun run) { return adjust(run, true); }
  Result<void> remove(BlockRun run) { return adjust(run, false); }

  // In the order in which they were freed, neighbours merged.
  [[nodiscard]] const std::vector<BlockRun>& freed() const { return freed_; }

  // A run of blocks with one count (>= 2).
  struct Record {
    BlockRun run;
    std::uint64_t refs;
  };
  static Result<Record> decode(const KeyValue& record);

 private:
  Result<void> adjust(BlockRun run, bool more);
  void put(BlockRun run, std::uint64_t refs);
  void replace(const std::vector<Record>& before, const std::vector<Record>& after);
  KvOverlay& kv_;
  std::vector<BlockRun> freed_;
};

}  // namespace odx
