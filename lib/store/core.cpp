#include "store/core.hpp"

#include <algorithm>
#include <chrono>
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
  constexpr int kMostRounds = 16;
  for (int round = 0;;) {
    const std::uint64_t existing = space.stats().total_blocks;
    if (space.allocate(blocks, 0, runs_out)) {
      return {};
    }
    if (ODX_TRY(grow(existing))) {
      continue;
    }
    // Nothing left to grow into. The first round takes the queue apart, all but what is damaged;
    // after that only what others free meanwhile, or read, is worth waiting for.
    if ((space.stats().pending_blocks == 0 && (round > 0 || reclaim_pending.load() == 0)) ||
        round == kMostRounds) {
      const auto last = space.allocate(blocks, 0, runs_out);
      if (last || !snapshots.end_holds()) {
        return last;
      }
      settle_space();  // what a check held back
      continue;
    }
    ++round;
    ODX_TRY(hurry_space());
  }
}

void Core::settle_space() noexcept {
  try {
    space.settle(std::min(meta->durable(), snapshots.oldest_held()));
  } catch (const std::bad_alloc&) {
    // The blocks are free; only the list of them, which nobody asked for, found no room.
  }
}

Result<void> Core::hurry_space() {
  // A reader is done when the device has answered it.
  constexpr std::chrono::seconds kMostWait(5);
  ODX_TRY(reclaim_now());
  const TxnSeq freed = meta->committed();
  ODX_TRY(meta->wait_durable(freed));
  snapshots.wait_past(freed, kMostWait);
  settle_space();
  return {};
}

}  // namespace odx
