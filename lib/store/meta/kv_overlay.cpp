#include <algorithm>
#include <iterator>
#include <utility>

#include "store/meta/kv.hpp"

namespace odx {

Result<std::optional<std::string>> KvOverlay::get(std::string_view key) const {
  const auto at = writes_.find(key);
  return at != writes_.end() ? at->second : base_.get(key);
}

Result<std::vector<KeyValue>> KvOverlay::scan(std::string_view from, std::string_view end,
                                              std::size_t limit) const {
  std::vector<KeyValue> out;
  if (from >= end) {
    return out;
  }
  auto mine = writes_.lower_bound(from);
  const auto mine_end = writes_.lower_bound(end);
  if (mine == mine_end) {
    return base_.scan(from, end, limit);
  }
  // The base is read in pieces, because changes may hide any number of its pairs.
  std::string resume(from);
  bool more = true;
  while (more && out.size() < limit) {
    const std::size_t wanted = limit - out.size();
    std::vector<KeyValue> piece = ODX_TRY(base_.scan(resume, end, wanted));
    more = piece.size() == wanted;
    for (KeyValue& pair : piece) {
      for (; mine != mine_end && mine->first < pair.key && out.size() < limit; ++mine) {
        if (mine->second) {
          out.push_back({mine->first, *mine->second});
        }
      }
      if (out.size() == limit) {
        return out;
      }
      if (more && &pair == &piece.back()) {
        resume = pair.key + '\0';  // the first key after it
      }
      if (mine != mine_end && mine->first == pair.key) {
        if (mine->second) {
          out.push_back({mine->first, *mine->second});
        }
        ++mine;
      } else {
        out.push_back(std::move(pair));
      }
    }
  }
  for (; mine != mine_end && out.size() < limit; ++mine) {
    if (mine->second) {
      out.push_back({mine->first, *mine->second});
    }
  }
  return out;
}

}  // namespace odx
