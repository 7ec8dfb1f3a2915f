// The ordered key/value state that everything but file data lives in, as its users see it.
// Keys are 1 to 500 bytes and do not begin with a zero byte; values at most 1 MiB.
#pragma once

#include <cstddef>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"

namespace odx {

inline constexpr std::size_t kMaxKeyBytes = 500;
inline constexpr std::size_t kMaxValueBytes = 1ULL << 20;

[[nodiscard]] inline bool key_is_valid(std::string_view key) {
  return !key.empty() && key.size() <= kMaxKeyBytes && key.front() != '\0';
}

struct KeyValue {
  std::string key;
  std::string value;
};

// One consistent view to read from.
class KvReader {
 public:
  virtual ~KvReader() = default;
  virtual Result<std::optional<std::string>> get(std::string_view key) const = 0;
  // Up to `limit` pairs with from <= key < end, in key order.
  virtual Result<std::vector<KeyValue>> scan(std::string_view from, std::string_view end,
                                             std::size_t limit) const = 0;
};

// Changes that are not committed yet; nullopt deletes.
using WriteSet = std::map<std::string, std::optional<std::string>, std::less<>>;

// A KvReader with changes laid over it: what a transaction reads and writes. One thread.
class KvOverlay final : public KvReader {
 public:
  explicit KvOverlay(const KvReader& base) : base_(base) {}
  Result<std::optional<std::string>> get(std::string_view key) const override;
  Result<std::vector<KeyValue>> scan(std::string_view from, std::string_view end,
                                     std::size_t limit) const override;
  void put(std::string key, std::string value) {
    writes_.insert_or_assign(std::move(key), std::move(value));
  }
  void erase(std::string key) { writes_.insert_or_assign(std::move(key), std::nullopt); }
  [[nodiscard]] const WriteSet& writes() const { return writes_; }
  WriteSet take_writes() { return std::move(writes_); }

 private:
  const KvReader& base_;
  WriteSet writes_;
};

}  // namespace odx
