#include "store/token/token_index.hpp"

namespace odx {

void TokenIndex::add(std::uint32_t uid, const TokenId& id) {
  const std::lock_guard lock(mutex_);
  of_user_[uid].insert(id);
}

void TokenIndex::remove(std::uint32_t uid, const TokenId& id) {
  const std::lock_guard lock(mutex_);
  const auto user = of_user_.find(uid);
  if (user == of_user_.end()) {
    return;
  }
  user->second.erase(id);
  if (user->second.empty()) {
    of_user_.erase(user);
  }
}

std::vector<TokenId> TokenIndex::behind(std::uint32_t uid, const TokenId& after,
                                        std::size_t limit) const {
  const std::lock_guard lock(mutex_);
  std::vector<TokenId> out;
  const auto user = of_user_.find(uid);
  if (user == of_user_.end()) {
    return out;
  }
  for (auto at = user->second.upper_bound(after); at != user->second.end() && out.size() < limit;
       ++at) {
    out.push_back(*at);
  }
  return out;
}

}  // namespace odx
