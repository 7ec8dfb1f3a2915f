// What one journal batch holds: the last value of each key that its transactions changed. The
// payload's table is in store/FORMAT.md.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "store/meta/memtable.hpp"

namespace odx {

struct Change {
  const std::string* key;  // in the memtable
  SharedValue value;
};

// Changes that left the open batch, with what keeps their keys alive.
struct SealedBatch {
  std::shared_ptr<const Memtable> keys;
  std::vector<Change> changes;
  std::uint64_t payload_bytes = 0;

  // The journal payload, exactly `payload_bytes` long.
  void encode(std::string& payload) const;
};

// The batch that commits add to. Not thread-safe.
class OpenBatch {
 public:
  // Takes the memory for so many more calls of add().
  void reserve(std::size_t more);
  // Notes the value that `at`, an entry of the current memtable, has just got.
  void add(Memtable::Map::iterator at);

  // Hands out everything and starts the next batch. `keys` is the memtable of all added entries.
  SealedBatch seal(std::shared_ptr<const Memtable> keys);

  [[nodiscard]] bool empty() const { return changes_.empty(); }
  [[nodiscard]] std::uint64_t payload_bytes() const { return payload_bytes_; }

 private:
  std::uint64_t number_ = 1;  // only tells this batch's entries from those of older ones
  std::vector<Change> changes_;
  std::uint64_t payload_bytes_ = kEmptyBytes;

  static constexpr std::uint64_t kEmptyBytes = 5;
};

// Calls `change` for each change in a payload; a null value deletes.
Result<void> decode_batch(std::string_view payload,
                          const std::function<void(std::string key, SharedValue value)>& change);

}  // namespace odx
