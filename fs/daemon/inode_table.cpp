#include "inode_table.hpp"

#include <algorithm>
#include <utility>

namespace odx::daemon {

bool InodeTable::settle(Shard& shard, std::unordered_map<InodeNo, Entry>::iterator at) {
  if (at->second.lookups != 0 || at->second.opens != 0) {
    return false;
  }
  const bool nameless = at->second.nameless;
  shard.entries.erase(at);
  return nameless;
}

void InodeTable::add_lookups(InodeNo ino, std::uint64_t count) {
  Shard& shard = shard_of(ino);
  const std::lock_guard lock(shard.mutex);
  shard.entries[ino].lookups += count;
}

bool InodeTable::forget(InodeNo ino, std::uint64_t count) {
  Shard& shard = shard_of(ino);
  const std::lock_guard lock(shard.mutex);
  const auto at = shard.entries.find(ino);
  if (at == shard.entries.end()) {
    return false;  // the root is known without having been looked up
  }
  at->second.lookups -= std::min(count, at->second.lookups);
  return settle(shard, at);
}

void InodeTable::opened(InodeNo ino, bool for_writing) {
  Shard& shard = shard_of(ino);
  const std::lock_guard lock(shard.mutex);
  Entry& entry = shard.entries[ino];
  ++entry.opens;
  entry.writers += for_writing ? 1 : 0;
}

bool InodeTable::closed(InodeNo ino, bool for_writing) {
  Shard& shard = shard_of(ino);
  const std::lock_guard lock(shard.mutex);
  const auto at = shard.entries.find(ino);
  if (at == shard.entries.end() || at->second.opens == 0) {
    return false;
  }
  --at->second.opens;
  at->second.writers -= for_writing && at->second.writers > 0 ? 1 : 0;
  return settle(shard, at);
}

bool InodeTable::has_no_name(InodeNo ino) {
  Shard& shard = shard_of(ino);
  const std::lock_guard lock(shard.mutex);
  const auto at = shard.entries.find(ino);
  if (at == shard.entries.end()) {
    return true;  // forgotten before the name went: nobody else will ask
  }
  at->second.nameless = true;
  return false;
}

bool InodeTable::may_be_dirty(InodeNo ino) const {
  const Shard& shard = shard_of(ino);
  const std::lock_guard lock(shard.mutex);
  const auto at = shard.entries.find(ino);
  return at != shard.entries.end() && at->second.writers > 0;
}

void InodeTable::write_back_failed(InodeNo ino, int error) {
  Shard& shard = shard_of(ino);
  const std::lock_guard lock(shard.mutex);
  const auto at = shard.entries.find(ino);
  if (at != shard.entries.end()) {
    at->second.write_back_error = error;
  }
}

int InodeTable::take_write_back_error(InodeNo ino) {
  Shard& shard = shard_of(ino);
  const std::lock_guard lock(shard.mutex);
  const auto at = shard.entries.find(ino);
  return at == shard.entries.end() ? 0 : std::exchange(at->second.write_back_error, 0);
}

std::vector<InodeNo> InodeTable::all_maybe_dirty() const {
  std::vector<InodeNo> found;
  for (const Shard& shard : shards_) {
    const std::lock_guard lock(shard.mutex);
    for (const auto& [ino, entry] : shard.entries) {
      if (entry.writers > 0) {
        found.push_back(ino);
      }
    }
  }
  return found;
}

}  // namespace odx::daemon
