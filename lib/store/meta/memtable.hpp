// Committed changes that are not in LMDB yet, in memory. Keys are never taken out (a deletion is a
// tombstone), so a key's address stays good as long as the memtable lives. Not thread-safe.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

namespace odx {

// Null says that the key is deleted.
using SharedValue = std::shared_ptr<const std::string>;

class Memtable {
 public:
  struct Entry {
    SharedValue value;
    // The entry's slot in batch `batch`, the last one that it changed in; see OpenBatch.
    std::uint64_t batch = 0;
    std::size_t slot = 0;
  };
  using Map = std::map<std::string, Entry, std::less<>>;

  // Sets `key` and returns its place.
  Map::iterator put(std::string&& key, SharedValue value) {
    const auto [at, inserted] = entries_.try_emplace(std::move(key));
    if (inserted) {
      bytes_ += at->first.size() + kEntryOverhead;
    } else if (at->second.value) {
      bytes_ -= at->second.value->size();
    }
    bytes_ += value ? value->size() : 0;
    at->second.value = std::move(value);
    return at;
  }

  [[nodiscard]] const Entry* find(std::string_view key) const {
    const auto at = entries_.find(key);
    return at == entries_.end() ? nullptr : &at->second;
  }

  [[nodiscard]] const Map& entries() const { return entries_; }
  [[nodiscard]] bool empty() const { return entries_.empty(); }
  // Memory that it takes, roughly.
  [[nodiscard]] std::uint64_t bytes() const { return bytes_; }

 private:
  // Map node, two strings' and the shared value's own bytes.
  static constexpr std::uint64_t kEntryOverhead = 176;

  Map entries_;
  std::uint64_t bytes_ = 0;
};

}  // namespace odx
