// Committed changes that are not in LMDB yet, in memory. Keys are never taken out (a deletion is a
// tombstone), so a key's address stays good as long as the memtable lives. Not thread-safe.
//
// A tombstone over nothing is kept apart: queues and counts come and go all the time, and a scan
// that had to step over all that ever was would grow slower with every commit.
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

  // A key with its value (null deletes), ready to be put: all memory that putting it takes.
  using Change = Map::node_type;
  static Change make_change(std::string&& key, SharedValue value) {
    Map one;
    const auto at = one.try_emplace(std::move(key)).first;
    at->second.value = std::move(value);
    return one.extract(at);
  }

  // Puts `change` and returns its place. `nothing_below`: the value is null, and no layer under
  // this one has the key.
  Map::iterator put(Change change, bool nothing_below = false) noexcept {
    SharedValue value = std::move(change.mapped().value);
    Map::iterator at;
    if (auto hidden = hidden_.find(change.key()); hidden != hidden_.end()) {
      at = entries_.insert(hidden_.extract(hidden)).position;
    } else {
      const auto put = entries_.insert(std::move(change));
      at = put.position;
      bytes_ += put.inserted ? at->first.size() + kEntryOverhead : 0;
    }
    bytes_ -= at->second.value ? at->second.value->size() : 0;
    bytes_ += value ? value->size() : 0;
    at->second.value = std::move(value);
    if (nothing_below) {
      at = hidden_.insert(entries_.extract(at)).position;
    }
    return at;
  }

  [[nodiscard]] const Entry* find(std::string_view key) const {
    if (const auto at = entries_.find(key); at != entries_.end()) {
      return &at->second;
    }
    const auto at = hidden_.find(key);
    return at == hidden_.end() ? nullptr : &at->second;
  }

  // All that a scan or the layer below has to know: values, and tombstones over something.
  [[nodiscard]] const Map& entries() const { return entries_; }
  [[nodiscard]] bool empty() const { return entries_.empty() && hidden_.empty(); }
  // Memory that it takes, roughly.
  [[nodiscard]] std::uint64_t bytes() const { return bytes_; }

 private:
  // Map node, two strings' and the shared value's own bytes.
  static constexpr std::uint64_t kEntryOverhead = 176;

  Map entries_;
  Map hidden_;  // tombstones over nothing
  std::uint64_t bytes_ = 0;
};

}  // namespace odx
