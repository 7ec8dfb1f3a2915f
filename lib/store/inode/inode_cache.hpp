// Decoded inodes, newest committed version, with a bound on their number.
#pragma once

#include <array>
#include <cstdint>
#include <list>
#include <mutex>
#include <optional>
#include <unordered_map>

#include "base/types.hpp"
#include "store/inode/inode.hpp"

namespace odx {

// Thread-safe. A look-up that misses reads the record and offers it back; publish() in between
// makes the offer void, so an old version never displaces a newer one.
class InodeCache {
 public:
  struct Hit {
    InodePtr inode;
    TxnSeq stamp;  // at least the transaction that made this version
  };
  // On a miss, `ticket` must be handed to offer().
  std::optional<Hit> find(InodeNo ino, std::uint64_t& ticket);
  void offer(InodeNo ino, InodePtr inode, TxnSeq stamp, std::uint64_t ticket);
  // The version that transaction `seq` has made, once the KV state shows it and before another one
  // changes the inode; null if it deleted the inode.
  void publish(InodeNo ino, InodePtr inode, TxnSeq seq);

 private:
  static constexpr std::size_t kShards = 16;
  static constexpr std::size_t kPerShard = 4096;
  struct Entry {
    InodePtr inode;
    TxnSeq stamp;
    std::list<InodeNo>::iterator age;
  };
  struct Shard {
    std::mutex mutex;
    std::uint64_t published = 0;
    std::unordered_map<InodeNo, Entry> entries;
    std::list<InodeNo> by_age;  // newest first
  };
  static void insert(Shard& shard, InodeNo ino, InodePtr inode, TxnSeq stamp);
  Shard& shard_of(InodeNo ino) { return shards_[ino.value() % kShards]; }
  std::array<Shard, kShards> shards_;
};

}  // namespace odx
