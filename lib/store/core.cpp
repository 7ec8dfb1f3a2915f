#include "store/core.hpp"

#include <algorithm>
#include <new>
#include <thread>

#include "store/meta/keys.hpp"

namespace odx {

namespace {

struct LoadedInode {
  InodePtr inode;
  TxnSeq stamp;
};

Result<LoadedInode> load_inode(Core& core, InodeNo ino) {
  std::uint64_t ticket = 0;
  if (auto hit = core.inodes.find(ino, ticket)) {
    return LoadedInode{std::move(hit->inode), hit->stamp};
  }
  TxnSeq stamp;
  const auto raw = ODX_TRY(core.meta->get_stamped(keys::inode(ino), stamp));
  if (!raw) {
    return fail(ENOENT);
  }
  auto inode = std::make_shared<const Inode>(ODX_TRY(Inode::decode(ino, *raw)));
  core.inodes.offer(ino, inode, stamp, ticket);
  return LoadedInode{std::move(inode), stamp};
}

}  // namespace

Result<InodePtr> Core::inode(InodeNo ino) { return ODX_TRY(load_inode(*this, ino)).inode; }

Result<Core::FileView> Core::view(InodeNo ino) {
  for (;;) {
    // The snapshot first: the version found afterwards is then either what the snapshot shows, or
    // one that is being published right now.
    Snapshot snapshot = snapshots.take();
    LoadedInode loaded = ODX_TRY(load_inode(*this, ino));
    if (loaded.stamp <= snapshot.seq()) {
      return FileView{std::move(snapshot), std::move(loaded.inode)};
    }
    std::this_thread::yield();
  }
}

Result<void> Core::allocate(std::uint64_t blocks, std::vector<BlockRun>& runs_out) {
  for (;;) {
    const std::uint64_t existing = device->blocks();
    if (space.allocate(blocks, 0, runs_out)) {
      return {};
    }
    if (ODX_TRY(grow(existing))) {
      continue;
    }
    // Nothing left to grow into: hurry what is being freed.
    const std::uint64_t pending_before = space.stats().pending_blocks;
    if (pending_before == 0 && reclaim_pending.load() == 0) {
      return fail(ENOSPC);
    }
    const std::uint64_t free_before = space.stats().free_blocks;
    ODX_TRY(reclaim_now());
    ODX_TRY(meta->wait_durable(meta->committed()));
    settle_space();
    if (space.stats().free_blocks <= free_before) {
      if (const auto last = space.allocate(blocks, 0, runs_out); last || !snapshots.end_holds()) {
        return last;
      }
      settle_space();  // what a check held back
    }
  }
}

void Core::settle_space() noexcept {
  try {
    space.settle(std::min(meta->durable(), snapshots.oldest_held()));
  } catch (const std::bad_alloc&) {
    // The blocks are free; only the list of them, which nobody asked for, found no room.
  }
}

std::uint64_t Core::host_reserve_bytes() const {
  return std::max<std::uint64_t>(super.limit_blocks / 50 * kBlockBytes, 64ULL << 20);
}

Result<bool> Core::grow(std::uint64_t seen_blocks) {
  const std::lock_guard lock(grow_mutex_);
  const std::uint64_t total = device->blocks();
  // A segment that was made when there was no memory to note it.
  if (const std::uint64_t known = space.stats().total_blocks; known < total) {
    space.add_segment(total - known);
    return true;
  }
  if (total != seen_blocks) {
    return true;  // somebody else was faster
  }
  if (total >= super.limit_blocks) {
    return false;
  }
  const std::uint64_t blocks = std::min(kSegmentBlocks, super.limit_blocks - total);
  if (device->host_free_bytes() < blocks * kBlockBytes + host_reserve_bytes()) {
    return false;
  }
  const Result<void> added = device->add_segment(blocks);
  if (!added) {
    if (added.error().errno_value() == ENOSPC) {
      return false;
    }
    return std::unexpected(added.error());
  }
  space.add_segment(blocks);
  return true;
}

Core::Capacity Core::capacity() const {
  const SpaceStats stats = space.stats();
  const std::uint64_t growth =
      super.limit_blocks - std::min(super.limit_blocks, stats.total_blocks);
  const std::uint64_t host = device->host_free_bytes();
  const std::uint64_t reserve = host_reserve_bytes();
  const std::uint64_t host_room = host > reserve ? (host - reserve) / kBlockBytes : 0;
  const std::uint64_t more = std::min(growth, host_room);
  return {(stats.total_blocks + more) * kBlockBytes,
          (stats.free_blocks + stats.pending_blocks + more) * kBlockBytes,
          stats.pending_blocks * kBlockBytes};
}

}  // namespace odx
