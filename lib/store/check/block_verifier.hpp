// Reads blocks and compares them with their checksums.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/aligned_buffer.hpp"
#include "base/result.hpp"
#include "base/types.hpp"
#include "store/device/block_device.hpp"
#include "store/meta/kv.hpp"

namespace odx::check {

struct BadBlock {
  enum class Why { kMismatch, kUnreadable, kNoChecksum };
  std::uint64_t block = 0;
  Why why = Why::kMismatch;
  friend bool operator==(const BadBlock&, const BadBlock&) = default;
};

// "the data does not match its checksum" and so on.
[[nodiscard]] const char* why_text(BadBlock::Why why);

// One thread.
class BlockVerifier {
 public:
  // Checksums as `kv` has them.
  BlockVerifier(const KvReader& kv, BlockDevice& device) : kv_(kv), device_(device) {}

  // Appends what is wrong with blocks of `runs` (ascending), in order. An error only if `kv` gives
  // one that is no corruption.
  Result<void> verify(std::span<const BlockRun> runs, std::vector<BadBlock>& bad);

 private:
  Result<void> verify_block(std::uint64_t block, const std::byte* data, std::vector<BadBlock>& bad);
  const KvReader& kv_;
  BlockDevice& device_;
  AlignedBuffer buffer_;
  std::vector<BlockRead> reads_;
  std::string crcs_;  // the checksum record read last; empty if it is missing or unreadable
  std::uint64_t group_ = UINT64_MAX;
};

}  // namespace odx::check
