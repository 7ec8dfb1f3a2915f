// The operations on ropes, inside one transaction.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <vector>

#include "base/result.hpp"
#include "base/types.hpp"
#include "store/extent/block_refs.hpp"
#include "store/extent/node_cache.hpp"
#include "store/extent/tree.hpp"
#include "store/meta/kv.hpp"

namespace odx {

// Every Tree passed by value is consumed: its references move into the result. A Tree passed by
// const reference is only read. Reference counts and nodes change in the overlay that the editor
// was made with; nothing is visible before finish() and the commit of that overlay. After an error
// the whole transaction must be abandoned. One thread.
class TreeEditor {
 public:
  // `next_node` hands out fresh node ids.
  TreeEditor(KvOverlay& kv, NodeCache& cache, std::function<Result<NodeId>()> next_node);

  // A rope of one extent in freshly allocated blocks (whose one reference it takes over), or of
  // one hole. `bytes` may be 0.
  static Tree of_data(PhysAddr at, std::uint64_t bytes);
  static Tree of_hole(std::uint64_t bytes);

  // A second owner of the same rope.
  Result<Tree> clone(const Tree& tree);
  // A new rope of bytes [at, at + bytes), which must lie inside; shares everything.
  Result<Tree> slice(const Tree& tree, FileOffset at, std::uint64_t bytes);
  // One behind the other.
  Result<Tree> concat(Tree left, Tree right);
  // `tree` with bytes [at, at + removed) replaced by `middle`; removes and inserts as special
  // cases. The range must lie inside the tree.
  Result<Tree> splice(Tree tree, FileOffset at, std::uint64_t removed, Tree middle);
  // Gives up the rope. Small ropes are taken apart at once; a larger one is queued for the
  // reclaimer in constant time.
  Result<void> drop(Tree tree);

  // The reclaimer's step: takes one queued node apart, which may queue its children.
  Result<void> reclaim(NodeId queued);

  // Writes the changed nodes into the overlay and says what changed, for NodeCache::publish().
  // Call it once, last.
  Result<std::vector<NodeChange>> finish();
  // Blocks whose last reference went; valid after finish().
  [[nodiscard]] const std::vector<BlockRun>& freed_blocks() const { return refs_.freed(); }

  // Distinct nodes read, written or freed since the editor was made.
  [[nodiscard]] std::size_t nodes_touched() const { return touched_.size(); }
  // Queue entries added minus removed.
  [[nodiscard]] std::int64_t reclaim_delta() const { return reclaim_delta_; }

 private:
  using Entries = std::vector<TreeEntry>;
  // A rope in hand: what its root node holds, owned by this transaction. At most kNodeMaxEntries
  // entries; empty is the empty rope. Everything below the entries is well-formed.
  struct Part {
    unsigned level = 0;
    Entries entries;
    [[nodiscard]] bool empty() const { return entries.empty(); }
  };

  Result<TreeNodePtr> load(NodeId id);
  // What an entry of a node at `level` (or a root, one level up) names, found to be what it says.
  Result<TreeNodePtr> load_root(const Tree::Root& root);
  Result<TreeNodePtr> load_child(unsigned level, const TreeEntry& entry);
  Result<std::uint64_t> node_refs(NodeId id);
  void set_node_refs(NodeId id, std::uint64_t refs);

  Result<void> share(unsigned level, const TreeEntry& entry);
  Result<void> give_up(unsigned level, const TreeEntry& entry);

  Result<Part> take(NodeId id, const TreeNodePtr& node);
  Result<Part> take_child(unsigned level, const TreeEntry& entry);
  Result<TreeEntry> store(unsigned level, Entries entries);
  Result<Part> open(Tree tree);
  Result<Tree> close(Part part);

  Result<void> append_extent(Entries& left, const TreeEntry& right);
  Result<Part> balanced(unsigned level, Entries entries);
  Result<Part> join(Part left, Part right);
  Result<Part> join_right(Part left, Part right);
  Result<Part> join_left(Part left, Part right);
  Result<std::pair<Part, Part>> cut_out(Part part, std::uint64_t from, std::uint64_t to);
  Result<Part> copy_range(const Part& part, std::uint64_t at, std::uint64_t bytes);
  Result<void> give_up(const Part& part);

  // The common small change, inside one leaf. False if it does not fit there.
  Result<bool> fits_in_leaf(const Tree::Root& root, std::uint64_t at, std::uint64_t removed,
                            const Tree& middle);
  Result<TreeEntry> splice_below(NodeId id, const TreeNodePtr& node, std::uint64_t at,
                                 std::uint64_t removed, const Part& middle);

  KvOverlay& kv_;
  NodeCache& cache_;
  std::function<Result<NodeId>()> next_node_;
  BlockRefs refs_;
  struct Dirty {
    TreeNodePtr before;
    TreeNodePtr after;
  };
  std::map<NodeId, Dirty> dirty_;
  std::vector<NodeId> spare_ids_;  // of nodes taken apart: reused, so that the same keys change
  std::set<NodeId> touched_;
  std::int64_t reclaim_delta_ = 0;
};

}  // namespace odx
