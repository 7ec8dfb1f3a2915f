// Which inodes the kernel knows and holds open: how long an inode without a name must stay, and
// where the kernel may have data that the store has not seen.
#pragma once

#include <array>
#include <cstdint>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "base/types.hpp"

namespace odx::daemon {

// Thread-safe; its mutexes are leaves. Calls that answer "reap" (true) do so at most once for an
// inode that nobody knows any more and whose last name is known to be gone.
class InodeTable {
 public:
  // Before the reply that tells the kernel of the inode.
  void add_lookups(InodeNo ino, std::uint64_t count = 1);
  [[nodiscard]] bool forget(InodeNo ino, std::uint64_t count);

  // Before the reply that opens it.
  void opened(InodeNo ino, bool for_writing);
  [[nodiscard]] bool closed(InodeNo ino, bool for_writing);

  // Unlink, rename or an unnamed creation left the inode without a name.
  [[nodiscard]] bool has_no_name(InodeNo ino);

  // The kernel can dirty pages of a file, without telling, exactly as long as it is open for
  // writing: the last RELEASE comes after the write-back (of mappings, too).
  [[nodiscard]] bool may_be_dirty(InodeNo ino) const;
  [[nodiscard]] std::vector<InodeNo> all_maybe_dirty() const;

  // A page that the kernel wrote back could not be stored: the kernel calls it clean all the same,
  // so the store has old content where readers see new. Remembered until somebody is told.
  void write_back_failed(InodeNo ino, int error);
  // Its errno, once; 0 if there was no failure.
  [[nodiscard]] int take_write_back_error(InodeNo ino);

 private:
  struct Entry {
    std::uint64_t lookups = 0;
    std::uint32_t opens = 0;
    std::uint32_t writers = 0;
    bool nameless = false;
    int write_back_error = 0;
  };
  struct Shard {
    mutable std::mutex mutex;
    std::unordered_map<InodeNo, Entry> entries;
  };
  static constexpr std::size_t kShards = 32;

  // Drops the entry if nothing is left in it; true if the inode is to be reaped.
  static bool settle(Shard& shard, std::unordered_map<InodeNo, Entry>::iterator at);
  Shard& shard_of(InodeNo ino) { return shards_[ino.value() % kShards]; }
  const Shard& shard_of(InodeNo ino) const { return shards_[ino.value() % kShards]; }

  std::array<Shard, kShards> shards_;
};

}  // namespace odx::daemon
