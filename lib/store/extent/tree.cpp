#include "store/extent/tree.hpp"

namespace odx {

namespace {

void put_leaf_entry(std::string& out, const TreeEntry& entry) {
  put_le(out, entry.bytes);
  put_le(out, entry.ref);
}

TreeEntry get_leaf_entry(Decoder& in) {
  TreeEntry entry;
  entry.bytes = in.le<std::uint64_t>();
  entry.ref = in.le<std::uint64_t>();
  entry.data_bytes = entry.is_hole() ? 0 : entry.bytes;
  return entry;
}

std::uint64_t sum_bytes(const std::vector<TreeEntry>& entries) {
  std::uint64_t sum = 0;
  for (const TreeEntry& entry : entries) {
    sum += entry.bytes;
  }
  return sum;
}

std::uint64_t sum_data(const std::vector<TreeEntry>& entries) {
  std::uint64_t sum = 0;
  for (const TreeEntry& entry : entries) {
    sum += entry.data_bytes;
  }
  return sum;
}

// No arithmetic on a decoded rope may wrap, whatever the disk says.
bool lengths_sane(const std::vector<TreeEntry>& entries, bool leaf) {
  std::uint64_t sum = 0;
  for (const TreeEntry& entry : entries) {
    if (entry.bytes == 0 || entry.bytes > kMaxFileBytes - sum || entry.data_bytes > entry.bytes) {
      return false;
    }
    if (leaf && !entry.is_hole() && entry.ref > kMaxFileBytes - entry.bytes) {
      return false;
    }
    sum += entry.bytes;
  }
  return true;
}

}  // namespace

std::string TreeNode::encode() const {
  std::string out;
  out.reserve(3 + entries.size() * 24);
  put_le(out, static_cast<std::uint8_t>(level));
  put_le(out, static_cast<std::uint16_t>(entries.size()));
  for (const TreeEntry& entry : entries) {
    if (level == 0) {
      put_leaf_entry(out, entry);
    } else {
      put_le(out, entry.bytes);
      put_le(out, entry.data_bytes);
      put_le(out, entry.ref);
    }
  }
  return out;
}

Result<TreeNode> TreeNode::decode(std::string_view bytes) {
  Decoder in(bytes);
  TreeNode node;
  node.level = in.le<std::uint8_t>();
  const std::size_t count = in.le<std::uint16_t>();
  if (in.failed() || node.level > kMaxTreeLevel || count == 0 || count > kNodeMaxEntries) {
    return corrupt("malformed tree node");
  }
  node.entries.reserve(count);
  for (std::size_t i = 0; i < count; ++i) {
    if (node.level == 0) {
      node.entries.push_back(get_leaf_entry(in));
    } else {
      TreeEntry entry;
      entry.bytes = in.le<std::uint64_t>();
      entry.data_bytes = in.le<std::uint64_t>();
      entry.ref = in.le<std::uint64_t>();
      node.entries.push_back(entry);
    }
  }
  ODX_TRY(in.finish("tree node"));
  if (!lengths_sane(node.entries, node.level == 0)) {
    return corrupt("impossible lengths in a tree node");
  }
  return node;
}

Result<void> check_child(unsigned level, const TreeEntry& entry, const TreeNode& node) {
  if (node.level + 1 != level) {
    return corrupt("tree node " + std::to_string(entry.ref) + " is at the wrong level");
  }
  if (sum_bytes(node.entries) != entry.bytes || sum_data(node.entries) != entry.data_bytes) {
    return corrupt("tree node " + std::to_string(entry.ref) + " has another length than recorded");
  }
  return {};
}

std::uint64_t Tree::bytes() const { return root ? root->bytes : sum_bytes(extents); }

std::uint64_t Tree::data_bytes() const { return root ? root->data_bytes : sum_data(extents); }

void Tree::encode(std::string& out) const {
  if (root) {
    put_le(out, std::uint8_t{1});
    put_le(out, root->id.value());
    put_le(out, static_cast<std::uint8_t>(root->level));
    put_le(out, root->bytes);
    put_le(out, root->data_bytes);
    return;
  }
  put_le(out, std::uint8_t{0});
  put_le(out, static_cast<std::uint8_t>(extents.size()));
  for (const TreeEntry& extent : extents) {
    put_leaf_entry(out, extent);
  }
}

Result<Tree> Tree::decode(Decoder& in) {
  Tree tree;
  const auto kind = in.le<std::uint8_t>();
  if (kind == 1) {
    Root root;
    root.id = NodeId(in.le<std::uint64_t>());
    root.level = in.le<std::uint8_t>();
    root.bytes = in.le<std::uint64_t>();
    root.data_bytes = in.le<std::uint64_t>();
    if (root.level > kMaxTreeLevel || root.bytes > kMaxFileBytes || root.data_bytes > root.bytes) {
      return corrupt("malformed tree root");
    }
    tree.root = root;
  } else if (kind == 0) {
    const std::size_t count = in.le<std::uint8_t>();
    if (count > kInlineExtents) {
      return corrupt("malformed tree root");
    }
    for (std::size_t i = 0; i < count && !in.failed(); ++i) {
      tree.extents.push_back(get_leaf_entry(in));
    }
    if (!in.failed() && !lengths_sane(tree.extents, true)) {
      return corrupt("impossible lengths in a tree root");
    }
  } else {
    return corrupt("unknown kind of tree root");
  }
  return tree;
}

}  // namespace odx
