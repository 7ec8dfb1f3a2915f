// Which live tokens are whose, so that a user's list does not cost what the others' tokens cost.
// Derived from table `T`; nothing of it is stored.
#pragma once

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <set>
#include <unordered_map>
#include <vector>

#include "base/types.hpp"

namespace odx {

// Thread-safe; its mutex is a leaf lock. Changed with the mutation lock held, just before the
// transaction's commit: what it names may be missing in the table for a moment, either way.
class TokenIndex {
 public:
  void add(std::uint32_t uid, const TokenId& id);
  void remove(std::uint32_t uid, const TokenId& id);
  // Up to `limit` ids of `uid` behind `after`, in order.
  [[nodiscard]] std::vector<TokenId> behind(std::uint32_t uid, const TokenId& after,
                                            std::size_t limit) const;

 private:
  mutable std::mutex mutex_;
  std::unordered_map<std::uint32_t, std::set<TokenId>> of_user_;
};

}  // namespace odx
