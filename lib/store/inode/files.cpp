// File content. Data goes to fresh blocks first, with no lock held; then one short transaction
// splices the new extents into the file's rope. So a write is seen wholly or not at all, an
// aligned write never reads, and readers go on in the old version meanwhile.
//
// A write that covers a block only in part carries the rest of that block along, read from the
// version it saw; if the file's data changed in between, it starts again with the newer version
// (data_version tells). Each retry means that somebody else's write went through.

#include "store/inode/files.hpp"

#include <algorithm>
#include <cstring>

#include "base/aligned_buffer.hpp"
#include "store/inode/data_io.hpp"
#include "store/mutation.hpp"

namespace odx {

namespace {

Result<void> require_regular(const Inode& inode) {
  if (inode.is_directory()) {
    return fail(EISDIR);
  }
  if (!inode.is_regular()) {
    return fail(EINVAL);
  }
  return {};
}

void note_change(Inode& inode, std::int64_t now_ns, Files::WriteOptions options) {
  ++inode.data_version;
  if (!options.keep_times) {
    inode.mtime_ns = now_ns;
    inode.ctime_ns = now_ns;
  }
  if (options.drop_set_id) {
    inode.mode &= ~static_cast<std::uint32_t>(S_ISUID);
    if ((inode.mode & S_IXGRP) != 0) {
      inode.mode &= ~static_cast<std::uint32_t>(S_ISGID);
    }
  }
}

// Replaces [at, at + bytes of middle) of the file, with a hole up to `at` if it ends before.
Result<void> overwrite(Mutation& mutation, Inode& inode, std::uint64_t at, Tree middle) {
  TreeEditor& trees = mutation.trees();
  const std::uint64_t size = inode.tree.bytes();
  if (at > size) {
    inode.tree = ODX_TRY(trees.concat(std::move(inode.tree), TreeEditor::of_hole(at - size)));
  }
  const std::uint64_t end = at + middle.bytes();
  const std::uint64_t removed = std::min(end, std::max(size, at)) - at;
  inode.tree =
      ODX_TRY(trees.splice(std::move(inode.tree), FileOffset(at), removed, std::move(middle)));
  return {};
}

Result<InodePtr> finish(Mutation& mutation, Inode inode) {
  auto answer = std::make_shared<const Inode>(inode);
  mutation.put(std::move(inode));
  ODX_TRY(mutation.commit());
  return answer;
}

// What of the file a write carries along so that it covers whole blocks.
struct WriteRange {
  std::uint64_t start;  // first byte that is written
  std::uint64_t end;
  bool carries = false;  // more than the caller's bytes
};

WriteRange widen(std::uint64_t at, std::uint64_t bytes, std::uint64_t size) {
  WriteRange range{at, at + bytes};
  const std::uint64_t block_start = round_down(at, kBlockBytes);
  if (block_start < at && block_start < size) {
    range.start = block_start;
    range.carries = true;
  }
  const std::uint64_t block_end = round_up(range.end, kBlockBytes);
  if (range.end < block_end && range.end < size) {
    range.end = std::min(block_end, size);
    range.carries = true;
  }
  return range;
}

// [at, at + into.size()) as the view shows it, zeros behind the end of the file.
Result<void> read_view(Core& core, const Core::FileView& view, std::uint64_t at,
                       std::span<std::byte> into) {
  const std::uint64_t size = view.inode->tree.bytes();
  const std::uint64_t there = at < size ? std::min<std::uint64_t>(into.size(), size - at) : 0;
  if (there > 0) {
    std::vector<MappedExtent> extents;
    TreeReader reader(core.nodes, *core.meta, view.snapshot.seq());
    ODX_TRY(reader.map(view.inode->tree, FileOffset(at), there, extents));
    ODX_TRY(read_extents(core, extents, into.first(there)));
  }
  std::memset(into.data() + there, 0, into.size() - there);
  return {};
}

// The blocks as a rope whose first byte is `skip` bytes into the first block.
Result<Tree> rope_of(TreeEditor& trees, const std::vector<BlockRun>& runs, std::uint64_t skip,
                     std::uint64_t bytes) {
  Tree rope;
  for (const BlockRun& run : runs) {
    const std::uint64_t here = std::min(run.count * kBlockBytes - skip, bytes);
    rope = ODX_TRY(
        trees.concat(std::move(rope), TreeEditor::of_data(address_of(run.first) + skip, here)));
    bytes -= here;
    skip = 0;
  }
  return rope;
}

}  // namespace

Result<std::size_t> Files::read(InodeNo ino, FileOffset at, std::span<std::byte> into) {
  const Core::FileView view = ODX_TRY(core_.view(ino));
  ODX_TRY(require_regular(*view.inode));
  const std::uint64_t size = view.inode->tree.bytes();
  if (at.value() >= size) {
    return 0;
  }
  const std::uint64_t bytes = std::min<std::uint64_t>(into.size(), size - at.value());
  thread_local std::vector<MappedExtent> extents;
  extents.clear();
  TreeReader reader(core_.nodes, *core_.meta, view.snapshot.seq());
  ODX_TRY(reader.map(view.inode->tree, at, bytes, extents));
  if (auto done = read_extents(core_, extents, into); !done) {
    Error error = std::move(done).error();
    if (error.is_corruption()) {
      return corrupt(error.detail() + ", inode " + std::to_string(ino.value()) + ", offset " +
                     std::to_string(at.value()) + " + " + std::to_string(bytes));
    }
    return std::unexpected(std::move(error));
  }
  return bytes;
}

Result<void> Files::write(InodeNo ino, FileOffset at, std::span<const std::byte> from,
                          WriteOptions options) {
  constexpr std::size_t kMaxWriteBytes = 16U << 20;
  if (from.size() > kMaxWriteBytes) {
    return fail(EINVAL);
  }
  if (at.value() > kMaxFileBytes || from.size() > kMaxFileBytes - at.value()) {
    return fail(EFBIG);
  }
  if (core_.read_only) {
    return fail(EROFS);
  }
  if (from.empty()) {
    return {};
  }
  thread_local AlignedBuffer scratch;
  thread_local std::vector<std::uint32_t> crcs;
  for (;;) {
    Core::FileView view = ODX_TRY(core_.view(ino));
    ODX_TRY(require_regular(*view.inode));
    const WriteRange range = widen(at.value(), from.size(), view.inode->tree.bytes());
    const std::uint64_t first_block_at = round_down(at.value(), kBlockBytes);
    const std::uint64_t span = round_up(range.end - first_block_at, kBlockBytes);

    // Aligned whole blocks are written from where they are; the rest by way of the scratch.
    const bool aligned = at.value() == first_block_at &&
                         reinterpret_cast<std::uintptr_t>(from.data()) % kBlockBytes == 0;
    const std::size_t direct = aligned ? round_down(from.size(), kBlockBytes) : 0;
    const std::span<const std::byte> body = from.first(direct);
    scratch.ensure(span - direct);
    const std::span<std::byte> tail = scratch.span().first(span - direct);
    if (!tail.empty()) {
      const std::size_t head = at.value() - first_block_at;  // 0 if aligned
      const std::size_t mine = from.size() - direct;
      if (head > 0) {
        ODX_TRY(read_view(core_, view, first_block_at, tail.first(head)));
      }
      std::memcpy(tail.data() + head, from.data() + direct, mine);
      const std::span<std::byte> behind = tail.subspan(head + mine);
      if (!behind.empty()) {
        ODX_TRY(read_view(core_, view, at.value() + from.size(), behind));
      }
    }

    // Nothing more is read; what is freed meanwhile must not wait for this call.
    view.snapshot = Snapshot();
    FreshBlocks blocks(core_);
    ODX_TRY(blocks.allocate(span / kBlockBytes));
    ODX_TRY(write_blocks(core_, blocks.runs(), body, tail, crcs));

    Mutation mutation = ODX_TRY(Mutation::begin(core_));
    Inode inode = ODX_TRY(mutation.inode(ino));
    if (range.carries && inode.data_version != view.inode->data_version) {
      continue;
    }
    Tree rope = ODX_TRY(rope_of(mutation.trees(), blocks.runs(), range.start - first_block_at,
                                range.end - range.start));
    ODX_TRY(overwrite(mutation, inode, range.start, std::move(rope)));
    const std::uint32_t* crc = crcs.data();
    for (const BlockRun& run : blocks.runs()) {
      ODX_TRY(mutation.put_checksums(run, crc));
      crc += run.count;
    }
    note_change(inode, mutation.now_ns(), options);
    mutation.put(std::move(inode));
    ODX_TRY(mutation.commit());
    blocks.keep();
    return {};
  }
}

Result<InodePtr> Files::truncate(InodeNo ino, std::uint64_t bytes, WriteOptions options) {
  if (bytes > kMaxFileBytes) {
    return fail(EFBIG);
  }
  Mutation mutation = ODX_TRY(Mutation::begin(core_));
  Inode inode = ODX_TRY(mutation.inode(ino));
  ODX_TRY(require_regular(inode));
  const std::uint64_t size = inode.tree.bytes();
  if (bytes < size) {
    inode.tree = ODX_TRY(
        mutation.trees().splice(std::move(inode.tree), FileOffset(bytes), size - bytes, Tree{}));
  } else if (bytes > size) {
    inode.tree =
        ODX_TRY(mutation.trees().concat(std::move(inode.tree), TreeEditor::of_hole(bytes - size)));
  }
  note_change(inode, mutation.now_ns(), options);
  return finish(mutation, std::move(inode));
}

Result<InodePtr> Files::allocate(InodeNo ino, AllocateMode mode, bool keep_size, FileOffset at,
                                 std::uint64_t bytes, WriteOptions options) {
  if (bytes == 0) {
    return fail(EINVAL);
  }
  if (at.value() > kMaxFileBytes || bytes > kMaxFileBytes - at.value()) {
    return fail(EFBIG);
  }
  if (mode == AllocateMode::kReserve && core_.capacity().free_bytes < bytes) {
    return fail(ENOSPC);
  }
  Mutation mutation = ODX_TRY(Mutation::begin(core_));
  Inode inode = ODX_TRY(mutation.inode(ino));
  ODX_TRY(require_regular(inode));
  TreeEditor& trees = mutation.trees();
  const std::uint64_t size = inode.tree.bytes();
  const std::uint64_t end = at.value() + bytes;
  const auto extend_to = [&](std::uint64_t to) -> Result<void> {
    if (to > inode.tree.bytes()) {
      inode.tree = ODX_TRY(
          trees.concat(std::move(inode.tree), TreeEditor::of_hole(to - inode.tree.bytes())));
    }
    return {};
  };
  switch (mode) {
    case AllocateMode::kReserve:
      if (keep_size || end <= size) {
        return std::make_shared<const Inode>(std::move(inode));
      }
      ODX_TRY(extend_to(end));
      break;
    case AllocateMode::kPunchHole:
    case AllocateMode::kZeroRange:
      if (mode == AllocateMode::kZeroRange && !keep_size) {
        ODX_TRY(extend_to(end));
      }
      if (at.value() < inode.tree.bytes()) {
        const std::uint64_t here = std::min(bytes, inode.tree.bytes() - at.value());
        inode.tree =
            ODX_TRY(trees.splice(std::move(inode.tree), at, here, TreeEditor::of_hole(here)));
      }
      break;
    case AllocateMode::kCollapse:
      if (end >= size) {
        return fail(EINVAL);
      }
      inode.tree = ODX_TRY(trees.splice(std::move(inode.tree), at, bytes, Tree{}));
      break;
    case AllocateMode::kInsert:
      if (at.value() >= size) {
        return fail(EINVAL);
      }
      if (bytes > kMaxFileBytes - size) {
        return fail(EFBIG);
      }
      inode.tree = ODX_TRY(trees.splice(std::move(inode.tree), at, 0, TreeEditor::of_hole(bytes)));
      break;
  }
  note_change(inode, mutation.now_ns(), options);
  return finish(mutation, std::move(inode));
}

Result<FileOffset> Files::seek_data(InodeNo ino, FileOffset at) {
  const Core::FileView view = ODX_TRY(core_.view(ino));
  ODX_TRY(require_regular(*view.inode));
  if (at.value() >= view.inode->tree.bytes()) {
    return fail(ENXIO);
  }
  TreeReader reader(core_.nodes, *core_.meta, view.snapshot.seq());
  const auto found = ODX_TRY(reader.seek_data(view.inode->tree, at));
  if (!found) {
    return fail(ENXIO);
  }
  return *found;
}

Result<FileOffset> Files::seek_hole(InodeNo ino, FileOffset at) {
  const Core::FileView view = ODX_TRY(core_.view(ino));
  ODX_TRY(require_regular(*view.inode));
  if (at.value() >= view.inode->tree.bytes()) {
    return fail(ENXIO);
  }
  TreeReader reader(core_.nodes, *core_.meta, view.snapshot.seq());
  return reader.seek_hole(view.inode->tree, at);
}

Result<Files::Copied> Files::copy_range(InodeNo from, FileOffset from_at, InodeNo to,
                                        FileOffset to_at, std::uint64_t bytes,
                                        WriteOptions options) {
  if (to_at.value() > kMaxFileBytes) {
    return fail(EFBIG);
  }
  Mutation mutation = ODX_TRY(Mutation::begin(core_));
  const Inode source = ODX_TRY(mutation.inode(from));
  ODX_TRY(require_regular(source));
  const std::uint64_t size = source.tree.bytes();
  if (from_at.value() >= size) {
    return Copied{};
  }
  const std::uint64_t count = std::min({bytes, size - from_at.value()});
  if (count == 0) {
    return Copied{};
  }
  if (count > kMaxFileBytes - to_at.value()) {
    return fail(EFBIG);
  }
  Tree piece = ODX_TRY(mutation.trees().slice(source.tree, from_at, count));
  Inode destination = ODX_TRY(mutation.inode(to));
  ODX_TRY(require_regular(destination));
  const Copied copied{count, piece.data_bytes()};
  ODX_TRY(overwrite(mutation, destination, to_at.value(), std::move(piece)));
  note_change(destination, mutation.now_ns(), options);
  mutation.put(std::move(destination));
  ODX_TRY(mutation.commit());
  core_.counters.clone_calls.fetch_add(1, std::memory_order_relaxed);
  core_.counters.clone_bytes_shared.fetch_add(copied.shared, std::memory_order_relaxed);
  return copied;
}

Result<void> Files::sync(InodeNo ino) {
  // The newest change of this inode, if it is known; everything otherwise.
  std::uint64_t ticket = 0;
  const auto hit = core_.inodes.find(ino, ticket);
  return core_.meta->wait_durable(hit ? hit->stamp : core_.meta->committed());
}

}  // namespace odx
