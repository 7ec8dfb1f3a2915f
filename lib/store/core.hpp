// What the parts of a store share. A Store owns one Core; the parts (names, files, tokens,
// reclaimer) hold a reference to it and keep no state of their own that a crash could part from it.
//
// Locks, in the order in which they may be taken:
//   0. Core::host_mutex       held over changes of what the host holds for the store, device I/O
//                             included; nobody waits for it who holds any other
//   1. Core::mutation_mutex   held by a Mutation from begin to commit; no device I/O under it
//   2. the leaf locks of InodeCache, NodeCache, Snapshots, SpaceMap and MetaStore
// Nothing is held across device I/O, a wait for durability, or a reply.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <string>

#include "base/bell.hpp"
#include "base/clock.hpp"
#include "base/result.hpp"
#include "base/types.hpp"
#include "odx/offload.h"
#include "store/device/block_device.hpp"
#include "store/extent/node_cache.hpp"
#include "store/extent/snapshots.hpp"
#include "store/inode/inode_cache.hpp"
#include "store/meta/meta_store.hpp"
#include "store/space/space_map.hpp"
#include "store/superblock.hpp"

namespace odx {

// Since open. Relaxed atomics: they are for people.
struct Counters {
  using Count = std::atomic<std::uint64_t>;
  Count device_bytes_read{0};
  Count device_bytes_written{0};
  Count clone_calls{0};
  Count clone_bytes_shared{0};
  Count offload_bytes{0};  // holes included
  Count offload_bytes_shared{0};
  std::array<Count, ODX_NOTE_SLOTS> fallback_bytes{};
  std::array<Count, ODX_REASON_SLOTS> refused{};  // offload controls that failed, by odx_reason
  Count tokens_created{0};
  Count tokens_redeemed{0};
  Count tokens_expired{0};
  Count tokens_dropped{0};
  Count checksum_errors{0};
};

class Core {
 public:
  Superblock super;
  const Clock* clock = &Clock::system();
  bool read_only = false;
  std::unique_ptr<BlockDevice> device;
  SpaceMap space;
  Snapshots snapshots;
  NodeCache nodes;
  InodeCache inodes;
  std::unique_ptr<MetaStore> meta;
  std::mutex mutation_mutex;
  std::mutex host_mutex;
  // How many data blocks there may be; the superblock's word on it once it is durable.
  std::atomic<std::uint64_t> limit_blocks{0};
  // The KV state says that the saved bitmaps are true; the first commit takes that back. Under the
  // mutation lock.
  bool clean_mark = false;
  Counters counters;

  // The committed inode. ENOENT if there is none.
  Result<InodePtr> inode(InodeNo ino);

  // A point in time of one file: `inode->tree` can be read through the node cache with
  // `snapshot.seq()`, and no block that it names is reused, until the snapshot dies.
  struct FileView {
    Snapshot snapshot;
    InodePtr inode;
  };
  Result<FileView> view(InodeNo ino);

  // Blocks for new data. Grows the store, and hurries freed space back, before it says ENOSPC.
  // Takes no lock that a Mutation holds; call it before begin(), and without a FileView: what was
  // freed since that was taken could not be had.
  Result<void> allocate(std::uint64_t blocks, std::vector<BlockRun>& runs_out);

  // Makes deferred blocks free as far as durability and readers allow.
  void settle_space() noexcept;

  // Takes the reclaim queue apart and waits until what was freed so far is free, as far as others
  // let go of it soon. No snapshot may be held.
  Result<void> hurry_space();

  // Gives some free space back to the host (host_space.cpp). True: there may be more to give.
  enum class ReturnSpace { kSpare, kAll };
  bool return_space(ReturnSpace how);

  // Bytes for statfs: the store's limit and what is left of it, the reserve and the host's free
  // space taken into account.
  struct Capacity {
    std::uint64_t total_bytes;
    std::uint64_t free_bytes;
    std::uint64_t pending_bytes;
  };
  [[nodiscard]] Capacity capacity() const;

  // Rung when the background thread has something to do: a subtree was queued, or a token ends
  // earlier than any before it.
  Bell background_bell;
  // Set by the Store before there are threads: works through the reclaim queue at once, on the
  // caller's thread, with no lock held.
  std::function<Result<void>()> reclaim_now = [] { return Result<void>(); };
  // Subtrees waiting to be reclaimed.
  std::atomic<std::uint64_t> reclaim_pending{0};
  // Those of them that cannot be taken apart, because something that they name is damaged. They
  // stay in the queue for check; nobody tries again before the next open. Under the mutation lock.
  std::set<NodeId> unreclaimable;

 private:
  // Host bytes that segments leave alone, so that metadata can always be written: deletes, drops
  // and checkpoints need no data blocks.
  [[nodiscard]] std::uint64_t host_reserve_bytes() const;
  // In blocks: what the host has beyond the reserve, and what is taken from it at a time.
  [[nodiscard]] std::uint64_t host_room() const;
  [[nodiscard]] std::uint64_t host_step() const;
  // False: no room, or at the limit. The second needs host_mutex.
  Result<bool> grow(std::uint64_t seen_blocks);
  Result<bool> fill_holes();
  bool returning_space_ = false;  // under host_mutex
};

}  // namespace odx
