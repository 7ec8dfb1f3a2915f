#include "store/extent/node_cache.hpp"

#include <algorithm>
#include <new>

#include "store/meta/keys.hpp"

namespace odx {

Result<TreeNodePtr> NodeCache::get(NodeId id, TxnSeq seq, const KvReader& kv) {
  Shard& shard = shard_of(id);
  const auto in_history = [&]() -> TreeNodePtr {
    const auto at = shard.history.find(id);
    if (at != shard.history.end()) {
      for (const Old& old : at->second) {  // oldest first
        if (seq < old.until) {
          return old.node;
        }
      }
    }
    return nullptr;
  };

  std::uint64_t ticket = 0;
  {
    const std::lock_guard lock(shard.mutex);
    if (TreeNodePtr old = in_history()) {
      return old;
    }
    const auto at = shard.current.find(id);
    if (at != shard.current.end()) {
      shard.by_age.splice(shard.by_age.begin(), shard.by_age, at->second.age);
      return at->second.node;
    }
    ticket = shard.published;
  }

  const std::optional<std::string> raw = ODX_TRY(kv.get(keys::node(id)));
  TreeNodePtr node;
  if (raw) {
    node = std::make_shared<const TreeNode>(ODX_TRY(TreeNode::decode(*raw)));
  }

  const std::lock_guard lock(shard.mutex);
  // A change published since the first look may be what the KV state showed; then the version
  // that was asked for is in the history now.
  if (TreeNodePtr old = in_history()) {
    return old;
  }
  if (!node) {
    return corrupt("tree node " + std::to_string(id.value()) + " is missing");
  }
  if (shard.published == ticket && !shard.current.contains(id)) {
    insert(shard, id, node);
  }
  return node;
}

void NodeCache::publish(TxnSeq seq, const std::vector<NodeChange>& changes) {
  for (const NodeChange& change : changes) {
    Shard& shard = shard_of(change.id);
    const std::lock_guard lock(shard.mutex);
    ++shard.published;
    if (change.before) {
      shard.history[change.id].push_back({seq, change.before});
      shard.history_by_age.emplace_back(seq, change.id);
    }
    remove(shard, change.id);
    if (change.after) {
      insert(shard, change.id, change.after);
    }
  }
}

void NodeCache::withdraw(TxnSeq seq, const std::vector<NodeChange>& changes) noexcept {
  for (const NodeChange& change : changes) {
    Shard& shard = shard_of(change.id);
    const std::lock_guard lock(shard.mutex);
    ++shard.published;
    remove(shard, change.id);
    if (const auto at = shard.history.find(change.id); at != shard.history.end()) {
      std::erase_if(at->second, [&](const Old& old) { return old.until == seq; });
      if (at->second.empty()) {
        shard.history.erase(at);
      }
    }
    while (!shard.history_by_age.empty() && shard.history_by_age.back().first == seq) {
      shard.history_by_age.pop_back();
    }
  }
}

void NodeCache::trim(TxnSeq oldest) {
  for (Shard& shard : shards_) {
    const std::lock_guard lock(shard.mutex);
    while (!shard.history_by_age.empty() && shard.history_by_age.front().first <= oldest) {
      const NodeId id = shard.history_by_age.front().second;
      shard.history_by_age.pop_front();
      const auto at = shard.history.find(id);
      if (at != shard.history.end()) {
        std::erase_if(at->second, [&](const Old& old) { return old.until <= oldest; });
        if (at->second.empty()) {
          shard.history.erase(at);
        }
      }
    }
  }
}

void NodeCache::insert(Shard& shard, NodeId id, TreeNodePtr node) const {
  std::list<NodeId> age;
  try {
    age.push_front(id);
    shard.current.emplace(id, Entry{std::move(node), age.begin()});
  } catch (const std::bad_alloc&) {
    return;  // the KV state has it, too
  }
  shard.by_age.splice(shard.by_age.begin(), age);
  while (shard.current.size() > std::max<std::size_t>(per_shard_, 1)) {
    shard.current.erase(shard.by_age.back());
    shard.by_age.pop_back();
  }
}

void NodeCache::remove(Shard& shard, NodeId id) {
  const auto at = shard.current.find(id);
  if (at != shard.current.end()) {
    shard.by_age.erase(at->second.age);
    shard.current.erase(at);
  }
}

}  // namespace odx
