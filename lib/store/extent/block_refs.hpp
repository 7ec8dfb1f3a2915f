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
  Result<void> add(BlockRun run) { return adjust(run, Change::kMore); }
  Result<void> remove(BlockRun run) { return adjust(run, Change::kLess); }
  // The same where another reference must stay: corruption if none would.
  Result<void> unshare(BlockRun run) { return adjust(run, Change::kLessButNotNone); }

  // In the order in which they were freed, neighbours merged.
  [[nodiscard]] const std::vector<BlockRun>& freed() const { return freed_; }

  // A run of blocks with one count (>= 2).
  struct Record {
    BlockRun run;
    std::uint64_t refs;
  };
  static Result<Record> decode(const KeyValue& record);

 private:
  enum class Change { kMore, kLess, kLessButNotNone };
  Result<void> adjust(BlockRun run, Change what);
  void put(BlockRun run, std::uint64_t refs);
  void replace(const std::vector<Record>& before, const std::vector<Record>& after);
  KvOverlay& kv_;
  std::vector<BlockRun> freed_;
};

}  // namespace odx
