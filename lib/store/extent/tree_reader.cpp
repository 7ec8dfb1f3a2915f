#include "store/extent/tree_reader.hpp"

#include <algorithm>

namespace odx {

namespace {

constexpr std::uint64_t kToTheEnd = UINT64_MAX;

// The root of a rope as a list of entries, without copying them.
struct RootView {
  TreeNodePtr node;
  unsigned level;
  const std::vector<TreeEntry>* entries;
};

Result<RootView> root_of(const Tree& tree, NodeCache& cache, const KvReader& kv, TxnSeq seq) {
  if (!tree.root) {
    return RootView{nullptr, 0, &tree.extents};
  }
  TreeNodePtr node = ODX_TRY(cache.get(tree.root->id, seq, kv));
  ODX_TRY(check_child(tree.root->level + 1, tree.root->entry(), *node));
  const RootView view{node, node->level, &node->entries};
  return view;
}

}  // namespace

Result<TreeNodePtr> TreeReader::child(unsigned level, const TreeEntry& entry) {
  TreeNodePtr node = ODX_TRY(cache_.get(entry.child(), seq_, kv_));
  ODX_TRY(check_child(level, entry, *node));
  return node;
}

Result<void> TreeReader::map(const Tree& tree, FileOffset at, std::uint64_t bytes,
                             std::vector<MappedExtent>& out) {
  if (bytes == 0) {
    return {};  // and no extent of no bytes
  }
  const RootView root = ODX_TRY(root_of(tree, cache_, kv_, seq_));
  const std::uint64_t to = bytes > kToTheEnd - at.value() ? kToTheEnd : at.value() + bytes;
  return map_entries(root.level, *root.entries, 0, at.value(), to, out);
}

Result<void> TreeReader::map_entries(unsigned level, const std::vector<TreeEntry>& entries,
                                     std::uint64_t base, std::uint64_t from, std::uint64_t to,
                                     std::vector<MappedExtent>& out) {
  for (const TreeEntry& entry : entries) {
    if (base >= to) {
      break;
    }
    const std::uint64_t end = base + entry.bytes;
    if (end > from) {
      if (level == 0) {
        const std::uint64_t first = std::max(base, from);
        const std::uint64_t bytes = std::min(end, to) - first;
        out.push_back({FileOffset(first),
                       entry.is_hole() ? TreeEntry::hole(bytes)
                                       : TreeEntry::data(entry.address() + (first - base), bytes)});
      } else {
        const TreeNodePtr node = ODX_TRY(child(level, entry));
        ODX_TRY(map_entries(node->level, node->entries, base, from, to, out));
      }
    }
    base = end;
  }
  return {};
}

// The first byte at or behind `from` that is data (or not).
Result<std::optional<std::uint64_t>> TreeReader::find(unsigned level,
                                                      const std::vector<TreeEntry>& entries,
                                                      std::uint64_t base, std::uint64_t from,
                                                      bool data) {
  for (const TreeEntry& entry : entries) {
    const std::uint64_t end = base + entry.bytes;
    const bool may_contain = data ? entry.data_bytes > 0 : entry.data_bytes < entry.bytes;
    if (end > from && may_contain) {
      if (level == 0) {
        return std::max(base, from);
      }
      const TreeNodePtr node = ODX_TRY(child(level, entry));
      const auto found = ODX_TRY(find(node->level, node->entries, base, from, data));
      if (found) {
        return found;
      }
    }
    base = end;
  }
  return std::nullopt;
}

Result<std::optional<FileOffset>> TreeReader::seek_data(const Tree& tree, FileOffset at) {
  const RootView root = ODX_TRY(root_of(tree, cache_, kv_, seq_));
  const auto found = ODX_TRY(find(root.level, *root.entries, 0, at.value(), true));
  return found ? std::optional(FileOffset(*found)) : std::nullopt;
}

Result<FileOffset> TreeReader::seek_hole(const Tree& tree, FileOffset at) {
  const RootView root = ODX_TRY(root_of(tree, cache_, kv_, seq_));
  const auto found = ODX_TRY(find(root.level, *root.entries, 0, at.value(), false));
  return FileOffset(found ? *found : tree.bytes());
}

Result<std::uint64_t> TreeReader::count(unsigned level, const std::vector<TreeEntry>& entries,
                                        std::uint64_t base, std::uint64_t from, std::uint64_t to) {
  std::uint64_t sum = 0;
  for (const TreeEntry& entry : entries) {
    const std::uint64_t first = std::max(base, from);
    const std::uint64_t end = std::min(base + entry.bytes, to);
    if (first < end) {
      if (end - first == entry.bytes) {
        sum += entry.data_bytes;
      } else if (level == 0) {
        sum += entry.is_hole() ? 0 : end - first;
      } else {
        const TreeNodePtr node = ODX_TRY(child(level, entry));
        sum += ODX_TRY(count(node->level, node->entries, base, from, to));
      }
    }
    base += entry.bytes;
  }
  return sum;
}

Result<std::uint64_t> TreeReader::data_bytes(const Tree& tree, FileOffset at, std::uint64_t bytes) {
  const RootView root = ODX_TRY(root_of(tree, cache_, kv_, seq_));
  return count(root.level, *root.entries, 0, at.value(), at.value() + bytes);
}

}  // namespace odx
