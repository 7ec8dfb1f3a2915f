// The extent tree: ropes as B+trees of shared nodes.
//
// Everything is made of five moves on a Part, the opened root of a rope that this transaction owns:
// take a node apart, store a node, cut a range out of a Part, join two Parts, and copy a range by
// sharing. Slice, splice and clone are a few of these each, and touch O(depth) nodes.
//
// Who counts what:
//   P  every parent entry, inode, token or reclaim-queue record that names a node is one reference
//      on that node (absent record = 1);
//   R  every entry of every leaf (inline lists included) is one reference on each block that it
//      names, whatever the number of parents of that leaf (absent record = 1).
// So sharing a subtree is one count, and blocks are counted up only when a shared leaf is copied.
// A node with one reference is taken apart under its own id; a shared one is copied, its children
// gain a reference each, and the sharing moves one level down.
//
// Invariants of stored nodes: 1 to kNodeMaxEntries entries, at least kNodeMinEntries unless it is
// a root, all leaves at one depth, sums right, touching extents merged within a leaf where cheap.
// An entry in hand always holds its reference, so no count reaches 0 too early whatever the order.

#include "store/extent/tree_editor.hpp"

#include <algorithm>

#include "store/meta/keys.hpp"

namespace odx {

namespace {

bool mergeable(const TreeEntry& left, const TreeEntry& right) {
  if (left.is_hole() || right.is_hole()) {
    return left.is_hole() && right.is_hole();
  }
  return left.address() + left.bytes == right.address() &&
         left.bytes + right.bytes <= kMaxMergedBytes;
}

// The part of an extent that starts `skip` bytes in.
TreeEntry piece_of(const TreeEntry& extent, std::uint64_t skip, std::uint64_t bytes) {
  return extent.is_hole() ? TreeEntry::hole(bytes)
                          : TreeEntry::data(extent.address() + skip, bytes);
}

bool inside_block(PhysAddr at) { return at.value() % kBlockBytes != 0; }

// The child in which a change of [at, at + removed) begins; `at` becomes the offset inside it. An
// insertion between two children goes to the end of the first.
std::size_t child_at(const std::vector<TreeEntry>& entries, std::uint64_t& at,
                     std::uint64_t removed) {
  std::size_t index = 0;
  while (index + 1 < entries.size() &&
         (removed == 0 ? at > entries[index].bytes : at >= entries[index].bytes)) {
    at -= entries[index].bytes;
    ++index;
  }
  return index;
}

}  // namespace

TreeEditor::TreeEditor(KvOverlay& kv, NodeCache& cache, std::function<Result<NodeId>()> next_node)
    : kv_(kv), cache_(cache), next_node_(std::move(next_node)), refs_(kv) {}

Tree TreeEditor::of_data(PhysAddr at, std::uint64_t bytes) {
  Tree tree;
  if (bytes > 0) {
    tree.extents.push_back(TreeEntry::data(at, bytes));
  }
  return tree;
}

Tree TreeEditor::of_hole(std::uint64_t bytes) {
  Tree tree;
  if (bytes > 0) {
    tree.extents.push_back(TreeEntry::hole(bytes));
  }
  return tree;
}

// --- nodes and counts ---

Result<TreeNodePtr> TreeEditor::load(NodeId id) {
  touched_.insert(id);
  const auto at = dirty_.find(id);
  if (at == dirty_.end()) {
    return cache_.get(id, NodeCache::kNewest, kv_);
  }
  if (!at->second.after) {
    return corrupt("tree node " + std::to_string(id.value()) + " is named twice");
  }
  return at->second.after;
}

Result<TreeNodePtr> TreeEditor::load_root(const Tree::Root& root) {
  TreeNodePtr node = ODX_TRY(load(root.id));
  ODX_TRY(check_child(root.level + 1, root.entry(), *node));
  return node;
}

Result<TreeNodePtr> TreeEditor::load_child(unsigned level, const TreeEntry& entry) {
  TreeNodePtr node = ODX_TRY(load(entry.child()));
  ODX_TRY(check_child(level, entry, *node));
  if (node->entries.size() < kNodeMinEntries) {
    // Joining relies on it: what is left of a fuller node is never lower than the node was.
    return corrupt("tree node " + std::to_string(entry.ref) + " has too few entries");
  }
  return node;
}

Result<std::uint64_t> TreeEditor::node_refs(NodeId id) {
  const std::optional<std::string> raw = ODX_TRY(kv_.get(keys::node_refs(id)));
  if (!raw) {
    return 1;
  }
  Decoder in(*raw);
  const auto refs = in.le<std::uint64_t>();
  ODX_TRY(in.finish("node reference count"));
  if (refs < 2 || refs == UINT64_MAX) {
    return corrupt("impossible reference count of tree node " + std::to_string(id.value()));
  }
  return refs;
}

void TreeEditor::set_node_refs(NodeId id, std::uint64_t refs) {
  if (refs == 1) {
    kv_.erase(keys::node_refs(id));
    return;
  }
  std::string value;
  put_le(value, refs);
  kv_.put(keys::node_refs(id), std::move(value));
}

// One reference more on what an entry of a node at `level` names.
Result<void> TreeEditor::share(unsigned level, const TreeEntry& entry) {
  if (level > 0) {
    set_node_refs(entry.child(), ODX_TRY(node_refs(entry.child())) + 1);
  } else if (!entry.is_hole()) {
    ODX_TRY(refs_.add(blocks_of(entry)));
  }
  return {};
}

Result<void> TreeEditor::give_up(unsigned level, const TreeEntry& entry) {
  if (level == 0) {
    if (!entry.is_hole()) {
      ODX_TRY(refs_.remove(blocks_of(entry)));
    }
    return {};
  }
  const std::uint64_t refs = ODX_TRY(node_refs(entry.child()));
  if (refs > 1) {
    set_node_refs(entry.child(), refs - 1);
  } else {
    kv_.put(keys::reclaim(entry.child()), {});
    ++reclaim_delta_;
  }
  return {};
}

Result<void> TreeEditor::give_up(const Part& part) {
  for (const TreeEntry& entry : part.entries) {
    ODX_TRY(give_up(part.level, entry));
  }
  return {};
}

// Gives up one reference on the node and owns its entries instead.
Result<TreeEditor::Part> TreeEditor::take(NodeId id, const TreeNodePtr& node) {
  Part part{node->level, node->entries};
  const std::uint64_t refs = ODX_TRY(node_refs(id));
  if (refs == 1) {
    const auto [at, fresh] = dirty_.try_emplace(id, Dirty{node, nullptr});
    at->second.after = nullptr;
    spare_ids_.push_back(id);
    return part;
  }
  for (const TreeEntry& entry : part.entries) {
    ODX_TRY(share(part.level, entry));
  }
  set_node_refs(id, refs - 1);
  return part;
}

Result<TreeEditor::Part> TreeEditor::take_child(unsigned level, const TreeEntry& entry) {
  return take(entry.child(), ODX_TRY(load_child(level, entry)));
}

// The entries as a node of their own; answers with the entry that names it.
Result<TreeEntry> TreeEditor::store(unsigned level, Entries entries) {
  ODX_CHECK(!entries.empty() && entries.size() <= kNodeMaxEntries);
  NodeId id;
  if (spare_ids_.empty()) {
    id = ODX_TRY(next_node_());
  } else {
    // Last taken, first stored: on the way back up a path every node gets its own id again.
    id = spare_ids_.back();
    spare_ids_.pop_back();
  }
  touched_.insert(id);
  TreeEntry entry;
  entry.ref = id.value();
  for (const TreeEntry& each : entries) {
    entry.bytes += each.bytes;
    entry.data_bytes += each.data_bytes;
  }
  auto node = std::make_shared<TreeNode>();
  node->level = level;
  node->entries = std::move(entries);
  dirty_[id].after = std::move(node);
  return entry;
}

Result<TreeEditor::Part> TreeEditor::open(Tree tree) {
  if (tree.root) {
    return take(tree.root->id, ODX_TRY(load_root(*tree.root)));
  }
  return Part{0, std::move(tree.extents)};
}

Result<Tree> TreeEditor::close(Part part) {
  while (part.level > 0 && part.entries.size() == 1) {
    part = ODX_TRY(take_child(part.level, part.entries.front()));
  }
  Tree tree;
  // What a cut leaves of a tall tree may be nothing, at any level.
  if (part.empty() || (part.level == 0 && part.entries.size() <= kInlineExtents)) {
    tree.extents = std::move(part.entries);
    return tree;
  }
  const unsigned level = part.level;
  const TreeEntry entry = ODX_TRY(store(level, std::move(part.entries)));
  tree.root = Tree::Root{entry.child(), level, entry.bytes, entry.data_bytes};
  return tree;
}

// --- joining ---

// Appends an extent to a list, merged with the last one where they continue each other.
Result<void> TreeEditor::append_extent(Entries& left, const TreeEntry& right) {
  if (left.empty() || !mergeable(left.back(), right)) {
    left.push_back(right);
    return {};
  }
  TreeEntry& last = left.back();
  if (!right.is_hole() && inside_block(right.address())) {
    ODX_TRY(refs_.unshare({block_of(right.address()), 1}));  // two entries named it, now one does
  }
  last.bytes += right.bytes;
  last.data_bytes += right.data_bytes;
  return {};
}

// A Part of up to twice kNodeMaxEntries entries: one level higher if one node can't hold them.
Result<TreeEditor::Part> TreeEditor::balanced(unsigned level, Entries entries) {
  if (entries.size() <= kNodeMaxEntries) {
    return Part{level, std::move(entries)};
  }
  const auto middle = entries.begin() + static_cast<std::ptrdiff_t>(entries.size() / 2);
  Entries second(middle, entries.end());
  entries.erase(middle, entries.end());
  Part above{level + 1, {}};
  above.entries.push_back(ODX_TRY(store(level, std::move(entries))));
  above.entries.push_back(ODX_TRY(store(level, std::move(second))));
  if (above.level > kMaxTreeLevel) {
    return fail(EFBIG);  // damaged sums: no file can need it
  }
  return above;
}

Result<TreeEditor::Part> TreeEditor::join(Part left, Part right) {
  if (left.empty()) {
    return right;
  }
  if (right.empty()) {
    return left;
  }
  if (left.level > right.level) {
    return join_right(std::move(left), std::move(right));
  }
  if (left.level < right.level) {
    return join_left(std::move(left), std::move(right));
  }
  auto from = right.entries.begin();
  if (left.level == 0) {
    ODX_TRY(append_extent(left.entries, *from));
    ++from;
  }
  left.entries.insert(left.entries.end(), from, right.entries.end());
  return balanced(left.level, std::move(left.entries));
}

// Hangs the lower `right` into the right edge of `left`.
Result<TreeEditor::Part> TreeEditor::join_right(Part left, Part right) {
  const unsigned below = left.level - 1;
  if (right.level == below && right.entries.size() >= kNodeMinEntries) {
    left.entries.push_back(ODX_TRY(store(below, std::move(right.entries))));
    return balanced(left.level, std::move(left.entries));
  }
  Part last = ODX_TRY(take_child(left.level, left.entries.back()));
  left.entries.pop_back();
  Part joined = ODX_TRY(join(std::move(last), std::move(right)));
  if (left.entries.empty()) {
    return joined;
  }
  if (joined.level == left.level) {
    left.entries.insert(left.entries.end(), joined.entries.begin(), joined.entries.end());
  } else {
    left.entries.push_back(ODX_TRY(store(below, std::move(joined.entries))));
  }
  return balanced(left.level, std::move(left.entries));
}

// Hangs the lower `left` into the left edge of `right`.
Result<TreeEditor::Part> TreeEditor::join_left(Part left, Part right) {
  const unsigned below = right.level - 1;
  if (left.level == below && left.entries.size() >= kNodeMinEntries) {
    right.entries.insert(right.entries.begin(), ODX_TRY(store(below, std::move(left.entries))));
    return balanced(right.level, std::move(right.entries));
  }
  Part first = ODX_TRY(take_child(right.level, right.entries.front()));
  right.entries.erase(right.entries.begin());
  Part joined = ODX_TRY(join(std::move(left), std::move(first)));
  if (right.entries.empty()) {
    return joined;
  }
  if (joined.level == right.level) {
    right.entries.insert(right.entries.begin(), joined.entries.begin(), joined.entries.end());
  } else {
    right.entries.insert(right.entries.begin(), ODX_TRY(store(below, std::move(joined.entries))));
  }
  return balanced(right.level, std::move(right.entries));
}

// --- cutting and sharing ---

// The two ends that remain when [from, to) is given up. One descent: what lies between is never
// made well-formed first.
Result<std::pair<TreeEditor::Part, TreeEditor::Part>> TreeEditor::cut_out(Part part,
                                                                          std::uint64_t from,
                                                                          std::uint64_t to) {
  Part left{part.level, {}};
  Part right{part.level, {}};
  Part left_edge{part.level, {}};   // what remains of the entry that `from` cuts
  Part right_edge{part.level, {}};  // what remains of the entry that `to` cuts
  std::uint64_t base = 0;
  for (const TreeEntry& entry : part.entries) {
    const std::uint64_t end = base + entry.bytes;
    const std::uint64_t gone_from = std::clamp(from, base, end);
    const std::uint64_t gone_to = std::clamp(to, base, end);
    if (end <= from) {
      left.entries.push_back(entry);
    } else if (base >= to) {
      right.entries.push_back(entry);
    } else if (gone_to - gone_from == entry.bytes) {
      ODX_TRY(give_up(part.level, entry));
    } else if (part.level > 0) {
      auto [first, last] = ODX_TRY(
          cut_out(ODX_TRY(take_child(part.level, entry)), gone_from - base, gone_to - base));
      (base < from ? left_edge : right_edge) = std::move(first);
      if (!last.empty()) {
        right_edge = std::move(last);
      }
    } else {
      // The pieces that stay are named before the whole is not.
      const TreeEntry first = piece_of(entry, 0, gone_from - base);
      const TreeEntry last = piece_of(entry, gone_to - base, end - gone_to);
      if (first.bytes > 0) {
        ODX_TRY(share(0, first));
        left.entries.push_back(first);
      }
      if (last.bytes > 0) {
        ODX_TRY(share(0, last));
        right.entries.push_back(last);
      }
      ODX_TRY(give_up(0, entry));
    }
    base = end;
  }
  return std::pair{ODX_TRY(join(std::move(left), std::move(left_edge))),
                   ODX_TRY(join(std::move(right_edge), std::move(right)))};
}

// A new Part that shares [at, at + bytes) of `part`, which stays as it is.
Result<TreeEditor::Part> TreeEditor::copy_range(const Part& part, std::uint64_t at,
                                                std::uint64_t bytes) {
  Part first{part.level, {}};  // a child of which only the end is wanted
  Part whole{part.level, {}};  // entries wanted as they are
  Part last{part.level, {}};   // a child of which only the beginning is wanted
  std::uint64_t base = 0;
  const std::uint64_t end = at + bytes;
  for (const TreeEntry& entry : part.entries) {
    const std::uint64_t from = std::max(base, at);
    const std::uint64_t to = std::min(base + entry.bytes, end);
    const std::uint64_t skip = from - base;
    if (from < to) {
      if (part.level == 0) {
        const TreeEntry piece = piece_of(entry, skip, to - from);
        ODX_TRY(share(0, piece));
        whole.entries.push_back(piece);
      } else if (to - from == entry.bytes) {
        ODX_TRY(share(part.level, entry));
        whole.entries.push_back(entry);
      } else {
        const TreeNodePtr node = ODX_TRY(load_child(part.level, entry));
        Part inner = ODX_TRY(copy_range(Part{node->level, node->entries}, skip, to - from));
        (first.empty() && whole.empty() ? first : last) = std::move(inner);
      }
    }
    base += entry.bytes;
    if (base >= end) {
      break;
    }
  }
  return join(ODX_TRY(join(std::move(first), std::move(whole))), std::move(last));
}

// --- the operations ---

Result<Tree> TreeEditor::clone(const Tree& tree) {
  if (tree.root) {
    touched_.insert(tree.root->id);
    set_node_refs(tree.root->id, ODX_TRY(node_refs(tree.root->id)) + 1);
  } else {
    for (const TreeEntry& extent : tree.extents) {
      ODX_TRY(share(0, extent));
    }
  }
  return tree;
}

Result<Tree> TreeEditor::slice(const Tree& tree, FileOffset at, std::uint64_t bytes) {
  const std::uint64_t total = tree.bytes();
  ODX_CHECK(at.value() <= total && bytes <= total - at.value());
  if (bytes == 0) {
    return Tree{};
  }
  if (bytes == total) {
    return clone(tree);
  }
  if (!tree.root) {
    return close(ODX_TRY(copy_range(Part{0, tree.extents}, at.value(), bytes)));
  }
  const TreeNodePtr node = ODX_TRY(load_root(*tree.root));
  return close(ODX_TRY(copy_range(Part{node->level, node->entries}, at.value(), bytes)));
}

Result<Tree> TreeEditor::concat(Tree left, Tree right) {
  Part opened = ODX_TRY(open(std::move(left)));
  return close(ODX_TRY(join(std::move(opened), ODX_TRY(open(std::move(right))))));
}

Result<Tree> TreeEditor::splice(Tree tree, FileOffset at, std::uint64_t removed, Tree middle) {
  const std::uint64_t total = tree.bytes();
  ODX_CHECK(at.value() <= total && removed <= total - at.value());
  if (removed == total) {  // nothing of it stays, so nothing of it need be looked at
    ODX_TRY(drop(std::move(tree)));
    return middle;
  }
  if (tree.root && ODX_TRY(fits_in_leaf(*tree.root, at.value(), removed, middle))) {
    const unsigned level = tree.root->level;
    const TreeEntry entry =
        ODX_TRY(splice_below(tree.root->id, ODX_TRY(load_root(*tree.root)), at.value(), removed,
                             Part{0, std::move(middle.extents)}));
    tree.root = Tree::Root{entry.child(), level, entry.bytes, entry.data_bytes};
    return tree;
  }
  auto [left, right] =
      ODX_TRY(cut_out(ODX_TRY(open(std::move(tree))), at.value(), at.value() + removed));
  Part joined = ODX_TRY(join(std::move(left), ODX_TRY(open(std::move(middle)))));
  return close(ODX_TRY(join(std::move(joined), std::move(right))));
}

// Looks without changing anything: the range lies in one leaf that is neither too full nor too
// empty afterwards.
Result<bool> TreeEditor::fits_in_leaf(const Tree::Root& root, std::uint64_t at,
                                      std::uint64_t removed, const Tree& middle) {
  if (middle.root) {
    return false;
  }
  bool is_root = true;
  for (TreeNodePtr node = ODX_TRY(load_root(root));; is_root = false) {
    if (node->level > 0) {
      const std::size_t index = child_at(node->entries, at, removed);
      if (removed > node->entries[index].bytes - at) {
        return false;
      }
      node = ODX_TRY(load_child(node->level, node->entries[index]));
      continue;
    }
    std::size_t overlapped = 0;
    std::uint64_t base = 0;
    for (const TreeEntry& extent : node->entries) {
      if (base < at + removed && base + extent.bytes > at) {
        ++overlapped;
      }
      base += extent.bytes;
    }
    // A cut can add an entry at either end, a merge can take one away.
    const std::size_t size = node->entries.size();
    const std::size_t least = is_root ? kInlineExtents + 1 : kNodeMinEntries;
    return size + middle.extents.size() + 2 <= kNodeMaxEntries && size >= overlapped + 2 + least;
  }
}

Result<TreeEntry> TreeEditor::splice_below(NodeId id, const TreeNodePtr& node, std::uint64_t at,
                                           std::uint64_t removed, const Part& middle) {
  Part part = ODX_TRY(take(id, node));
  if (part.level > 0) {
    const std::size_t index = child_at(part.entries, at, removed);
    TreeEntry& entry = part.entries[index];
    const TreeNodePtr child = ODX_TRY(load_child(part.level, entry));
    entry = ODX_TRY(splice_below(entry.child(), child, at, removed, middle));
    return store(part.level, std::move(part.entries));
  }
  auto [left, right] = ODX_TRY(cut_out(std::move(part), at, at + removed));
  Part joined = ODX_TRY(join(ODX_TRY(join(std::move(left), middle)), std::move(right)));
  return store(0, std::move(joined.entries));
}

Result<void> TreeEditor::drop(Tree tree) {
  if (tree.root) {
    TreeEntry entry;
    entry.ref = tree.root->id.value();
    return give_up(tree.root->level + 1, entry);
  }
  return give_up(Part{0, std::move(tree.extents)});
}

Result<void> TreeEditor::reclaim(NodeId queued) {
  kv_.erase(keys::reclaim(queued));
  --reclaim_delta_;
  const Part part = ODX_TRY(take(queued, ODX_TRY(load(queued))));
  spare_ids_.clear();  // the point is to be rid of the node
  return give_up(part);
}

Result<std::vector<NodeChange>> TreeEditor::finish() {
  std::vector<NodeChange> changes;
  for (auto& [id, dirty] : dirty_) {
    if (dirty.after) {
      if (dirty.before && dirty.before->level == dirty.after->level &&
          dirty.before->entries == dirty.after->entries) {
        continue;
      }
      kv_.put(keys::node(id), dirty.after->encode());
    } else if (dirty.before) {
      kv_.erase(keys::node(id));
    } else {
      continue;  // came and went within this transaction
    }
    changes.push_back({id, std::move(dirty.before), std::move(dirty.after)});
  }
  return changes;
}

}  // namespace odx
