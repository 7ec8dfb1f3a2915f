#include "store/check/block_verifier.hpp"

#include "base/codec.hpp"
#include "base/crc32c.hpp"
#include "store/meta/keys.hpp"

namespace odx::check {

namespace {
constexpr std::uint64_t kPerRecord = keys::kChecksumsPerRecord;
}  // namespace

const char* why_text(BadBlock::Why why) {
  switch (why) {
    case BadBlock::Why::kMismatch:
      return "the data does not match its checksum";
    case BadBlock::Why::kUnreadable:
      return "the data cannot be read";
    case BadBlock::Why::kNoChecksum:
      return "no readable checksum";
  }
  return "?";
}

Result<void> BlockVerifier::verify(std::span<const BlockRun> runs, std::vector<BadBlock>& bad) {
  std::uint64_t blocks = 0;
  for (const BlockRun& run : runs) {
    blocks += run.count;
  }
  buffer_.ensure(blocks * kBlockBytes);
  reads_.clear();
  std::byte* at = buffer_.data();
  for (const BlockRun& run : runs) {
    reads_.push_back({run, at});
    at += run.count * kBlockBytes;
  }
  group_ = UINT64_MAX;  // what is remembered of `kv` may be old
  const bool readable = device_.read(reads_).has_value();
  for (const BlockRead& read : reads_) {
    for (std::uint64_t i = 0; i < read.run.count; ++i) {
      const BlockNo block = read.run.first + i;
      std::byte* const data = read.data + i * kBlockBytes;
      if (!readable) {  // some block of them: find out which
        const BlockRead one{{block, 1}, data};
        if (!device_.read({&one, 1})) {
          bad.push_back({block.value(), BadBlock::Why::kUnreadable});
          continue;
        }
      }
      ODX_TRY(verify_block(block.value(), data, bad));
    }
  }
  return {};
}

Result<void> BlockVerifier::verify_block(std::uint64_t block, const std::byte* data,
                                         std::vector<BadBlock>& bad) {
  if (block / kPerRecord != group_) {
    auto record = kv_.get(keys::checksums(BlockNo(block)));
    if (!record && !record.error().is_corruption()) {
      return std::unexpected(record.error());
    }
    const bool usable =
        record && *record && (*record)->size() == kPerRecord * sizeof(std::uint32_t);
    crcs_ = usable ? std::move(**record) : std::string();
    group_ = block / kPerRecord;
  }
  if (crcs_.empty()) {
    bad.push_back({block, BadBlock::Why::kNoChecksum});
  } else if (crc32c(data, kBlockBytes) !=
             load_le<std::uint32_t>(crcs_.data() + block % kPerRecord * sizeof(std::uint32_t))) {
    bad.push_back({block, BadBlock::Why::kMismatch});
  }
  return {};
}

}  // namespace odx::check
