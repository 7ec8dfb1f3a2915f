#include "store/inode/inode_cache.hpp"

#include <new>

namespace odx {

std::optional<InodeCache::Hit> InodeCache::find(InodeNo ino, std::uint64_t& ticket) {
  Shard& shard = shard_of(ino);
  const std::lock_guard lock(shard.mutex);
  const auto at = shard.entries.find(ino);
  if (at == shard.entries.end()) {
    ticket = shard.published;
    return std::nullopt;
  }
  shard.by_age.splice(shard.by_age.begin(), shard.by_age, at->second.age);
  return Hit{at->second.inode, at->second.stamp};
}

void InodeCache::offer(InodeNo ino, InodePtr inode, TxnSeq stamp, std::uint64_t ticket) {
  Shard& shard = shard_of(ino);
  const std::lock_guard lock(shard.mutex);
  if (shard.published == ticket && !shard.entries.contains(ino)) {
    insert(shard, ino, std::move(inode), stamp);
  }
}

void InodeCache::publish(InodeNo ino, InodePtr inode, TxnSeq seq) {
  Shard& shard = shard_of(ino);
  const std::lock_guard lock(shard.mutex);
  ++shard.published;
  const auto at = shard.entries.find(ino);
  if (at != shard.entries.end()) {
    shard.by_age.erase(at->second.age);
    shard.entries.erase(at);
  }
  if (inode) {
    insert(shard, ino, std::move(inode), seq);
  }
}

void InodeCache::insert(Shard& shard, InodeNo ino, InodePtr inode, TxnSeq stamp) {
  std::list<InodeNo> age;
  try {
    age.push_front(ino);
    shard.entries.emplace(ino, Entry{std::move(inode), stamp, age.begin()});
  } catch (const std::bad_alloc&) {
    return;  // it is only a cache
  }
  shard.by_age.splice(shard.by_age.begin(), age);
  while (shard.entries.size() > kPerShard) {
    shard.entries.erase(shard.by_age.back());
    shard.by_age.pop_back();
  }
}

}  // namespace odx
