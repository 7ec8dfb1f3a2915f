#include "store/inode/data_io.hpp"

#include <algorithm>
#include <cstring>

#include "base/aligned_buffer.hpp"
#include "base/crc32c.hpp"
#include "store/meta/keys.hpp"

namespace odx {

namespace {

bool page_aligned(const void* at) {
  return reinterpret_cast<std::uintptr_t>(at) % kBlockBytes == 0;
}

// Looks up block checksums, one record at a time.
class ChecksumReader {
 public:
  explicit ChecksumReader(const KvReader& kv) : kv_(kv) {}
  Result<std::uint32_t> of(BlockNo block) {
    const std::uint64_t group = block.value() / keys::kChecksumsPerRecord;
    if (!loaded_ || group != group_) {
      auto raw = ODX_TRY(kv_.get(keys::checksums(block)));
      if (!raw || raw->size() != keys::kChecksumsPerRecord * sizeof(std::uint32_t)) {
        return corrupt("no checksum for block " + std::to_string(block.value()));
      }
      record_ = std::move(*raw);
      group_ = group;
      loaded_ = true;
    }
    return load_le<std::uint32_t>(record_.data() + block.value() % keys::kChecksumsPerRecord *
                                                       sizeof(std::uint32_t));
  }

 private:
  const KvReader& kv_;
  std::string record_;
  std::uint64_t group_ = 0;
  bool loaded_ = false;
};

// An extent that could not be read in place.
struct Detour {
  std::size_t read;  // which one
  std::size_t scratch_at;
  std::size_t skip;  // bytes of the first block in front of the extent
  std::size_t into_at;
  std::size_t bytes;
};

// Reads of blocks, gathered and done together. Its memory is reused from call to call, so that the
// read path allocates nothing once it is warm.
class ReadRound {
 public:
  ReadRound(Core& core, std::span<std::byte> into)
      : core_(core), into_(into), checksums_(*core.meta) {
    scratch_.reads.clear();
    scratch_.detours.clear();
  }

  void in_place(BlockRun run, std::size_t into_at) {
    scratch_.reads.push_back({run, into_.data() + into_at});
  }

  // Extents may be a byte long and each cost a block: what is gathered is bounded.
  Result<void> detour(BlockRun run, std::size_t skip, std::size_t into_at, std::size_t bytes) {
    const std::size_t whole = run.count * kBlockBytes;
    if (detour_bytes_ > 0 && detour_bytes_ + whole > kMaxDetourBytes) {
      ODX_TRY(finish());
    }
    scratch_.detours.push_back({scratch_.reads.size(), detour_bytes_, skip, into_at, bytes});
    scratch_.reads.push_back({run, nullptr});
    detour_bytes_ += whole;
    return {};
  }

  // Reads, verifies and hands out what was gathered.
  Result<void> finish() {
    scratch_.buffer.ensure(detour_bytes_);
    for (const Detour& detour : scratch_.detours) {
      scratch_.reads[detour.read].data = scratch_.buffer.data() + detour.scratch_at;
    }
    ODX_TRY(core_.device->read(scratch_.reads));
    for (const BlockRead& read : scratch_.reads) {
      ODX_TRY(verify(read));
    }
    for (const Detour& detour : scratch_.detours) {
      std::memcpy(into_.data() + detour.into_at,
                  scratch_.buffer.data() + detour.scratch_at + detour.skip, detour.bytes);
    }
    scratch_.reads.clear();
    scratch_.detours.clear();
    detour_bytes_ = 0;
    return {};
  }

 private:
  static constexpr std::size_t kMaxDetourBytes = 4 << 20;
  struct Scratch {
    std::vector<BlockRead> reads;
    std::vector<Detour> detours;
    AlignedBuffer buffer;
  };

  Result<void> verify(const BlockRead& read) {
    for (std::uint64_t i = 0; i < read.run.count; ++i) {
      const BlockNo block = read.run.first + i;
      if (crc32c(read.data + i * kBlockBytes, kBlockBytes) != ODX_TRY(checksums_.of(block))) {
        core_.counters.checksum_errors.fetch_add(1, std::memory_order_relaxed);
        return corrupt("checksum mismatch in block " + std::to_string(block.value()));
      }
    }
    core_.counters.device_bytes_read.fetch_add(read.run.count * kBlockBytes,
                                               std::memory_order_relaxed);
    return {};
  }

  static thread_local Scratch scratch_;
  Core& core_;
  std::span<std::byte> into_;
  ChecksumReader checksums_;
  std::size_t detour_bytes_ = 0;
};

thread_local ReadRound::Scratch ReadRound::scratch_;

}  // namespace

Result<void> read_extents(Core& core, std::span<const MappedExtent> extents,
                          std::span<std::byte> into) {
  ReadRound round(core, into);
  std::size_t at = 0;
  for (const MappedExtent& piece : extents) {
    const TreeEntry& extent = piece.extent;
    if (extent.bytes > into.size() - at) {
      return corrupt("a file's extents reach beyond its size");
    }
    if (extent.is_hole()) {
      std::memset(into.data() + at, 0, extent.bytes);
      at += extent.bytes;
      continue;
    }
    const BlockRun run = blocks_of(extent);
    const std::size_t skip = extent.address().value() % kBlockBytes;
    const std::size_t whole = run.count * kBlockBytes;
    const bool is_last = &piece == &extents.back();
    if (skip == 0 && page_aligned(into.data() + at) &&
        (whole == extent.bytes || (is_last && whole <= into.size() - at))) {
      round.in_place(run, at);
    } else {
      ODX_TRY(round.detour(run, skip, at, extent.bytes));
    }
    at += extent.bytes;
  }
  return round.finish();
}

Result<void> write_blocks(Core& core, std::span<const BlockRun> runs,
                          std::span<const std::byte> body, std::span<const std::byte> tail,
                          std::vector<std::uint32_t>& crcs) {
  crcs.clear();
  for (const auto part : {body, tail}) {
    for (std::size_t at = 0; at < part.size(); at += kBlockBytes) {
      crcs.push_back(crc32c(part.data() + at, kBlockBytes));
    }
  }
  thread_local std::vector<BlockWrite> writes;
  writes.clear();
  std::uint64_t index = 0;  // of a block among all that are written
  const std::uint64_t body_blocks = body.size() / kBlockBytes;
  for (BlockRun run : runs) {
    while (run.count > 0) {
      const bool in_body = index < body_blocks;
      const std::uint64_t count = in_body ? std::min(run.count, body_blocks - index) : run.count;
      const std::byte* from = in_body ? body.data() + index * kBlockBytes
                                      : tail.data() + (index - body_blocks) * kBlockBytes;
      writes.push_back({{run.first, count}, from});
      run = {run.first + count, run.count - count};
      index += count;
    }
  }
  ODX_CHECK(index == crcs.size());
  ODX_TRY(core.device->write(writes));
  core.counters.device_bytes_written.fetch_add(index * kBlockBytes, std::memory_order_relaxed);
  return {};
}

}  // namespace odx
