// Records in a plain map, as the store's state.
#pragma once

#include <algorithm>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "store/meta/kv.hpp"

namespace odx::fuzz {

using Records = std::map<std::string, std::string, std::less<>>;

class MapKv final : public KvReader {
 public:
  Records records;

  Result<std::optional<std::string>> get(std::string_view key) const override {
    const auto at = records.find(key);
    return at == records.end() ? std::nullopt : std::optional(at->second);
  }
  Result<std::vector<KeyValue>> scan(std::string_view from, std::string_view end,
                                     std::size_t limit) const override {
    std::vector<KeyValue> out;
    for (auto at = records.lower_bound(from);
         at != records.end() && at->first < end && out.size() < limit; ++at) {
      out.push_back({at->first, at->second});
    }
    return out;
  }
  void apply(const WriteSet& writes) {
    for (const auto& [key, value] : writes) {
      if (value) {
        records.insert_or_assign(key, *value);
      } else {
        records.erase(key);
      }
    }
  }
};

}  // namespace odx::fuzz
