// A reference from a node that nobody reaches counts too: it is the top of what was lost that is
// the problem, not everything below. Since a child must be one level lower than its parent, nodes
// cannot form a ring, so everything lost has such a top.
#include "store/check/tree_check.hpp"

#include <algorithm>

#include "store/meta/keys.hpp"

namespace odx::check {

namespace {

std::string node_text(NodeId id) { return fmt::format("tree node {}", id.value()); }

bool is_numbered(const KeyValue& record) { return record.key.size() == 9; }

}  // namespace

TreeCheck::Facts* TreeCheck::find(NodeId id) {
  const auto at = std::lower_bound(facts_.begin(), facts_.end(), id,
                                   [](const Facts& f, NodeId wanted) { return f.id < wanted; });
  return at != facts_.end() && at->id == id ? &*at : nullptr;
}

Result<void> TreeCheck::read_nodes() {
  return for_each_record(kv_, keys::kNode, "tree nodes", findings_, [&](const KeyValue& record) {
    const NodeId id(keys::number_of(record.key));
    highest_ = std::max(highest_, id);
    const Result<TreeNode> node = TreeNode::decode(record.value);
    if (!node || !is_numbered(record)) {
      findings_.problem("{}: {}", node_text(id),
                        node ? "malformed key" : node.error().detail().c_str());
      return;
    }
    Facts facts;
    facts.id = id;
    facts.level = static_cast<std::uint8_t>(node->level);
    facts.entries = static_cast<std::uint8_t>(node->entries.size());
    for (const TreeEntry& entry : node->entries) {
      facts.bytes += entry.bytes;
      facts.data_bytes += entry.data_bytes;
    }
    facts_.push_back(facts);
    ++findings_.report.nodes;
  });
}

TreeCheck::Facts* TreeCheck::refer(NodeId id, const std::string& owner) {
  highest_ = std::max(highest_, id);
  Facts* const facts = find(id);
  if (facts == nullptr) {
    findings_.problem("{} refers to {}, which does not exist", owner, node_text(id));
  } else {
    ++facts->refs;
  }
  return facts;
}

void TreeCheck::see_tree(const Tree& tree, const std::string& owner) {
  for (const TreeEntry& extent : tree.extents) {
    space_.see_extent(extent, owner);
  }
  if (!tree.root) {
    return;
  }
  const Facts* const facts = refer(tree.root->id, owner);
  if (facts == nullptr) {
    return;
  }
  if (facts->level != tree.root->level) {
    findings_.problem("{}: root {} has level {}, recorded is {}", owner, facts->id.value(),
                      facts->level, tree.root->level);
  }
  if (facts->bytes != tree.root->bytes || facts->data_bytes != tree.root->data_bytes) {
    findings_.problem("{}: root {} holds {} bytes ({} data), recorded are {} ({} data)", owner,
                      facts->id.value(), facts->bytes, facts->data_bytes, tree.root->bytes,
                      tree.root->data_bytes);
  }
}

Result<void> TreeCheck::read_queue() {
  return for_each_record(kv_, keys::kReclaim, "reclaim queue", findings_,
                         [&](const KeyValue& record) {
                           if (!is_numbered(record) || !record.value.empty()) {
                             findings_.problem("malformed record in the reclaim queue");
                             return;
                           }
                           ++findings_.report.queued;
                           refer(NodeId(keys::number_of(record.key)), "the reclaim queue");
                         });
}

Result<void> TreeCheck::read_children() {
  return for_each_record(kv_, keys::kNode, "trees", findings_, [&](const KeyValue& record) {
    const NodeId id(keys::number_of(record.key));
    const Result<TreeNode> node = TreeNode::decode(record.value);
    if (!node) {
      return;  // named by read_nodes()
    }
    const std::string owner = node_text(id);
    for (const TreeEntry& entry : node->entries) {
      if (node->level == 0) {
        space_.see_extent(entry, owner);
        continue;
      }
      Facts* const child = refer(entry.child(), owner);
      if (child == nullptr) {
        continue;
      }
      child->is_child = true;
      if (child->level + 1U != node->level) {
        findings_.problem("{} at level {} has {} at level {} for a child", owner, node->level,
                          node_text(child->id), child->level);
      }
      if (child->bytes != entry.bytes || child->data_bytes != entry.data_bytes) {
        findings_.problem("{}: child {} holds {} bytes ({} data), recorded are {} ({} data)", owner,
                          child->id.value(), child->bytes, child->data_bytes, entry.bytes,
                          entry.data_bytes);
      }
    }
  });
}

Result<void> TreeCheck::compare() {
  ODX_TRY(for_each_record(
      kv_, keys::kNodeRefs, "tree node references", findings_, [&](const KeyValue& record) {
        const NodeId id(keys::number_of(record.key));
        highest_ = std::max(highest_, id);
        Decoder in(record.value);
        const auto refs = in.le<std::uint64_t>();
        if (!is_numbered(record) || !in.finish("count") || refs < 2) {
          findings_.problem("{}: malformed reference count", node_text(id));
          return;
        }
        if (Facts* const facts = find(id)) {
          facts->recorded = refs;
        } else {
          findings_.problem("reference count of {}, which does not exist", node_text(id));
        }
      }));
  for (const Facts& facts : facts_) {
    if (facts.refs == 0) {
      findings_.problem("nothing refers to {}", node_text(facts.id));
    } else if (facts.refs != facts.recorded) {
      findings_.problem("{}: reference count is {}, but it has {}", node_text(facts.id),
                        facts.recorded, facts.refs);
    }
    if (facts.is_child && facts.entries < kNodeMinEntries) {
      findings_.problem("{} has {} entries, fewer than {}", node_text(facts.id), facts.entries,
                        kNodeMinEntries);
    }
  }
  return {};
}

}  // namespace odx::check
