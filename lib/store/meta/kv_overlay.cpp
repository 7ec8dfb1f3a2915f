#include <algorithm>
#include <iterator>
#include <utility>

#include "store/meta/kv.hpp"

namespace odx {

namespace {

// As base.scan(), but that pairs which are changed by `writes` may be missing.
Result<std::vector<KeyValue>> scan_base(const KvReader& base, const WriteSet& writes,
                                        std::string_view from, std::string_view end,
                                        std::size_t limit) {
  auto plain = base.scan(from, end, limit);
  if (plain || !plain.error().is_corruption()) {
    return plain;
  }
  // What cannot be read may be what is changed here: then it does not matter. So the base is asked
  // for what lies between the changes.
  std::vector<KeyValue> out;
  std::string at(from);
  for (auto hidden = writes.lower_bound(at); at < end && out.size() < limit; ++hidden) {
    const bool last = hidden == writes.end() || hidden->first >= end;
    const std::string_view until = last ? end : std::string_view(hidden->first);
    auto piece = ODX_TRY(base.scan(at, until, limit - out.size()));
    std::move(piece.begin(), piece.end(), std::back_inserter(out));
    if (last) {
      break;
    }
    at = hidden->first + '\0';
  }
  return out;
}

}  // namespace

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
    std::vector<KeyValue> piece = ODX_TRY(scan_base(base_, writes_, resume, end, wanted));
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
