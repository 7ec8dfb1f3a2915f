// Decoded tree nodes: the newest committed version of each, and the older ones that a snapshot may
// still ask for. A node keeps its id when it changes; what makes it persistent for readers is that
// its old version stays here until no snapshot is older than the change.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <list>
#include <map>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "base/result.hpp"
#include "base/types.hpp"
#include "store/extent/tree.hpp"
#include "store/meta/kv.hpp"

namespace odx {

struct NodeChange {
  NodeId id;
  TreeNodePtr before;  // null if the transaction created it
  TreeNodePtr after;   // null if the transaction deleted it
};

// Thread-safe; its locks are leaf locks.
class NodeCache {
 public:
  explicit NodeCache(std::size_t max_nodes = 32768) : per_shard_(max_nodes / kShards) {}

  // The node as of `seq` (kNewest: under the mutation lock, the committed one). A missing node is
  // corruption: whoever asks holds a reference.
  static constexpr TxnSeq kNewest{UINT64_MAX};
  Result<TreeNodePtr> get(NodeId id, TxnSeq seq, const KvReader& kv);

  // Before transaction `seq` becomes visible in the KV state. Mutation lock held.
  void publish(TxnSeq seq, const std::vector<NodeChange>& changes);
  // Undoes publish(), also one that ran out of memory midway: the transaction does not happen.
  void withdraw(TxnSeq seq, const std::vector<NodeChange>& changes) noexcept;
  // Forgets versions that no snapshot of `oldest` or later can ask for.
  void trim(TxnSeq oldest);

 private:
  static constexpr std::size_t kShards = 16;
  struct Old {
    TxnSeq until;  // valid for snapshots before this transaction
    TreeNodePtr node;
  };
  struct Entry {
    TreeNodePtr node;
    std::list<NodeId>::iterator age;
  };
  struct Shard {
    std::mutex mutex;
    std::uint64_t published = 0;
    std::unordered_map<NodeId, Entry> current;
    std::list<NodeId> by_age;  // newest first
    std::unordered_map<NodeId, std::vector<Old>> history;
    std::deque<std::pair<TxnSeq, NodeId>> history_by_age;
  };
  Shard& shard_of(NodeId id) { return shards_[id.value() % kShards]; }
  void insert(Shard& shard, NodeId id, TreeNodePtr node) const;
  static void remove(Shard& shard, NodeId id);
  std::size_t per_shard_;
  std::array<Shard, kShards> shards_;
};

}  // namespace odx
