#include "store/inode/data_io.hpp"

#include <algorithm>
#include <cstring>

#include "base/aligned_buffer.hpp"
#include "base/crc32c.hpp"
#include "store/meta/keys.hpp"

namespace odx {

namespace {

bool page_aligned(const void* at) { return reinterpret_cast<std::uintptr_t>(at) % kBlockBytes == 0; }

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
  std::size_t scratch_at;
  std::size_t skip;  // bytes of the first block in front of the extent
  std::size_t into_at;
  std::size_t bytes;
};

// Reused from call to call, so that the read path allocates nothing once it is warm.
struct ReadScratch {
  std::vector<BlockRead> reads;
  std::vector<Detour> detours;
  std::vector<std::size_t> detour_reads;  // index into reads, for each detour
  AlignedBuffer buffer;
};

}  // namespace

Result<void> read_extents(Core& core, std::span<const MappedExtent> extents,
                          std::span<std::byte> into) {
  thread_local ReadScratch scratch;
  scratch.reads.clear();
  scratch.detours.clear();
  scratch.detour_reads.clear();

  std::size_t at = 0;
  std::size_t scratch_bytes = 0;
  for (const MappedExtent& piece : extents) {
    const TreeEntry& extent = piece.extent;
    if (extent.is_hole()) {
      std::memset(into.data() + at, 0, extent.bytes);
      at += extent.bytes;
      continue;
    }
    const BlockRun run = blocks_of(extent);
    const std::size_t skip = extent.address().value() % kBlockBytes;
    const std::size_t whole = run.count * kBlockBytes;
    const bool is_last = &piece == &extents.back();
    const bool in_place = skip == 0 && page_aligned(into.data() + at) &&
                          (whole == extent.bytes || (is_last && whole <= into.size() - at));
    if (in_place) {
      scratch.reads.push_back({run, into.data() + at});
    } else {
      scratch.detours.push_back({scratch_bytes, skip, at, extent.bytes});
      scratch.detour_reads.push_back(scratch.reads.size());
      scratch.reads.push_back({run, nullptr});
      scratch_bytes += whole;
    }
    at += extent.bytes;
  }
  scratch.buffer.ensure(scratch_bytes);
  for (std::size_t i = 0; i < scratch.detours.size(); ++i) {
    scratch.reads[scratch.detour_reads[i]].data =
        scratch.buffer.data() + scratch.detours[i].scratch_at;
  }

  ODX_TRY(core.device->read(scratch.reads));
  ChecksumReader checksums(*core.meta);
  for (const BlockRead& read : scratch.reads) {
    for (std::uint64_t i = 0; i < read.run.count; ++i) {
      const BlockNo block = read.run.first + i;
      if (crc32c(read.data + i * kBlockBytes, kBlockBytes) != ODX_TRY(checksums.of(block))) {
        core.counters.checksum_errors.fetch_add(1, std::memory_order_relaxed);
        return corrupt("checksum mismatch in block " + std::to_string(block.value()));
      }
    }
    core.counters.device_bytes_read.fetch_add(read.run.count * kBlockBytes,
                                              std::memory_order_relaxed);
  }
  for (const Detour& detour : scratch.detours) {
    std::memcpy(into.data() + detour.into_at,
                scratch.buffer.data() + detour.scratch_at + detour.skip, detour.bytes);
  }
  return {};
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
