// A reference from a node that nobody reaches counts too: it is the top of what was lost that is
// the problem, not everything below. Since a child must be one level lower than its parent, nodes
// cannot form a ring, so everything lost has such a top.
#include "store/check/tree_check.hpp"

#include <algorithm>
#include <optional>

#include "base/codec.hpp"
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
  ODX_TRY(for_each_record(kv_, keys::kNode, "tree nodes", findings_, [&](const KeyValue& record) {
    const NodeId id(keys::number_of(record.key));
    highest_ = std::max(highest_, id);
    const Result<TreeNode> node = TreeNode::decode(record.value);
    if (!node || !is_numbered(record)) {
      findings_.problem("{}: {}", node_text(id),
                        node ? "malformed key" : node.error().detail().c_str());
      findings_.unreadable(record.key);
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
  }));
  findings_.for_each_unreadable(keys::kNode, [&](const std::string& key) {
    highest_ = std::max(highest_, NodeId(keys::number_of(key)));
  });
  return {};
}

TreeCheck::Facts* TreeCheck::refer(NodeId id, const std::string& owner) {
  highest_ = std::max(highest_, id);
  Facts* const facts = find(id);
  if (facts != nullptr) {
    ++facts->refs;
  } else if (findings_.is_unreadable(keys::node(id))) {
    findings_.problem("{} refers to {}, which cannot be read", owner, node_text(id));
  } else {
    findings_.problem("{} refers to {}, which does not exist", owner, node_text(id));
    findings_.references_lost();
  }
  return facts;
}

void TreeCheck::see_tree(const Tree& tree, const std::string& owner) {
  for (const TreeEntry& extent : tree.extents) {
    space_.see_extent(extent, owner);
    space_.walk_extent(extent);
  }
  if (!tree.root) {
    return;
  }
  roots_.push_back(tree.root->id);
  const Facts* const facts = refer(tree.root->id, owner);
  if (facts == nullptr) {
    return;
  }
  if (facts->level != tree.root->level) {
    findings_.references_lost();
    findings_.problem("{}: root {} has level {}, recorded is {}", owner, facts->id.value(),
                      facts->level, tree.root->level);
  }
  if (facts->bytes != tree.root->bytes || facts->data_bytes != tree.root->data_bytes) {
    findings_.references_lost();
    findings_.problem("{}: root {} holds {} bytes ({} data), recorded are {} ({} data)", owner,
                      facts->id.value(), facts->bytes, facts->data_bytes, tree.root->bytes,
                      tree.root->data_bytes);
  }
}

Result<void> TreeCheck::read_queue() {
  ODX_TRY(
      for_each_record(kv_, keys::kReclaim, "reclaim queue", findings_, [&](const KeyValue& record) {
        const NodeId id(keys::number_of(record.key));
        if (!is_numbered(record) || !record.value.empty()) {
          findings_.problem("malformed record in the reclaim queue");
          findings_.unreadable(record.key);
          return;
        }
        ++findings_.report.queued;
        roots_.push_back(id);
        if (refer(id, "the reclaim queue") == nullptr && !findings_.is_unreadable(keys::node(id))) {
          findings_.fix(Stage::kRecords,
                        fmt::format("the reclaim queue's record of {}, which does not exist, is "
                                    "removed",
                                    node_text(id)),
                        {{record.key, std::nullopt}});
        }
      }));
  // All that such a record says is in its key.
  findings_.for_each_unreadable(keys::kReclaim, [&](const std::string& key) {
    const NodeId id(keys::number_of(key));
    const bool known =
        key.size() == 9 && (find(id) != nullptr || findings_.is_unreadable(keys::node(id)));
    findings_.fix(Stage::kRecords,
                  fmt::format("a record of the reclaim queue that cannot be read is {}",
                              known ? "made anew" : "removed, as it names nothing"),
                  {{key, known ? std::optional<std::string>(std::string()) : std::nullopt}});
  });
  return {};
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
        findings_.references_lost();
        findings_.problem("{} at level {} has {} at level {} for a child", owner, node->level,
                          node_text(child->id), child->level);
      }
      if (child->bytes != entry.bytes || child->data_bytes != entry.data_bytes) {
        findings_.references_lost();
        findings_.problem("{}: child {} holds {} bytes ({} data), recorded are {} ({} data)", owner,
                          child->id.value(), child->bytes, child->data_bytes, entry.bytes,
                          entry.data_bytes);
      }
    }
  });
}

Result<void> TreeCheck::walk_below(NodeId root) {
  Facts* const top = find(root);
  if (top == nullptr) {
    return {};
  }
  ++top->walked;
  std::vector<Facts*> pending;
  const auto enter = [&](Facts* facts) {
    if (!facts->visited) {
      facts->visited = true;
      pending.push_back(facts);
    }
  };
  enter(top);
  while (!pending.empty()) {
    const NodeId id = pending.back()->id;
    pending.pop_back();
    const auto record = ODX_TRY(kv_.get(keys::node(id)));
    if (!record) {
      return corrupt("a tree node vanished while it was looked at");
    }
    const TreeNode node = ODX_TRY(TreeNode::decode(*record));
    for (const TreeEntry& entry : node.entries) {
      if (node.level == 0) {
        space_.walk_extent(entry);
      } else if (Facts* const child = find(entry.child())) {
        ++child->walked;
        enter(child);
      }
    }
    if (++walked_nodes_ % 10000 == 0) {
      findings_.progress("trees from their roots", walked_nodes_, facts_.size());
    }
  }
  return {};
}

Result<void> TreeCheck::walk() {
  findings_.progress("trees from their roots", 0, facts_.size());
  for (const NodeId root : roots_) {
    ODX_TRY(walk_below(root));
  }
  // What nobody names is counted as well: its blocks are not free.
  for (Facts& facts : facts_) {
    if (facts.refs == 0) {
      ODX_TRY(walk_below(facts.id));
      facts.walked = 0;
    }
  }
  for (const Facts& facts : facts_) {
    if (facts.walked != facts.refs) {
      findings_.problem("{}: the table of nodes has {} references to it, the trees have {}",
                        node_text(facts.id), facts.refs, facts.walked);
      findings_.references_lost();  // one of the counts is wrong: trust neither
    }
  }
  return {};
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
          findings_.unreadable(record.key);
          return;
        }
        if (Facts* const facts = find(id)) {
          facts->recorded = refs;
        } else {
          const bool there = findings_.is_unreadable(keys::node(id));
          if (!there) {
            findings_.problem("reference count of {}, which does not exist", node_text(id));
            findings_.fix(
                Stage::kRecords,
                fmt::format("reference count of {}, which does not exist: removed", node_text(id)),
                {{record.key, std::nullopt}});
          }
        }
      }));
  findings_.for_each_unreadable(keys::kNodeRefs, [&](const std::string& key) {
    const NodeId id(keys::number_of(key));
    if (key.size() != 9 || (find(id) == nullptr && !findings_.is_unreadable(keys::node(id)))) {
      findings_.fix(Stage::kRecords, "a reference count of no tree node is removed",
                    {{key, std::nullopt}});
    }
  });
  for (const Facts& facts : facts_) {
    const bool count_known = !findings_.is_unreadable(keys::node_refs(facts.id));
    if (facts.refs == 0) {
      findings_.problem("nothing refers to {}", node_text(facts.id));
      if (findings_.references_complete()) {
        lost_.push_back({facts.id, facts.level, facts.bytes, facts.data_bytes});
      }
    } else if (facts.refs != facts.recorded && count_known) {
      findings_.problem("{}: reference count is {}, but it has {}", node_text(facts.id),
                        facts.recorded, facts.refs);
    }
    if (facts.refs != 0) {
      fix_count(facts, count_known);
    }
    if (facts.is_child && facts.entries < kNodeMinEntries) {
      findings_.problem("{} has {} entries, fewer than {}", node_text(facts.id), facts.entries,
                        kNodeMinEntries);
    }
  }
  return {};
}

// A count that is too low lets something be freed that is in use; raising it is always right.
// Lowering it is right only if all who might refer to the node have been heard.
void TreeCheck::fix_count(const Facts& facts, bool record_is_good) {
  const bool right = record_is_good && facts.refs == facts.recorded;
  const bool raise = record_is_good && facts.refs > facts.recorded;
  if (right || (!raise && !findings_.references_complete())) {
    return;
  }
  std::optional<std::string> value;
  if (facts.refs > 1) {
    put_le(value.emplace(), facts.refs);
  }
  findings_.fix(Stage::kCounts,
                fmt::format("{}: reference count is {} now", node_text(facts.id), facts.refs),
                {{keys::node_refs(facts.id), std::move(value)}});
}

}  // namespace odx::check
