// Ropes over any node, count and block reference records: reading and editing them answers, with
// data or an error, whatever the records say. Where they are sound, lengths come out right.
#include <optional>
#include <vector>

#include "input.hpp"
#include "map_kv.hpp"
#include "store/extent/tree_editor.hpp"
#include "store/extent/tree_reader.hpp"
#include "store/meta/keys.hpp"

namespace odx::fuzz {

namespace {

constexpr std::uint64_t kNodes = 12;
constexpr std::size_t kTrees = 4;
constexpr std::uint64_t kMostMapped = 64 * 1024;

struct World {
  MapKv kv;
  NodeCache cache{64};
  std::uint64_t next_node = kNodes;
  TxnSeq seq{0};
  std::vector<Tree> trees = std::vector<Tree>(kTrees);
};

TreeEntry leaf_entry(Input& in) {
  const std::uint8_t kind = in.byte();
  if (kind < 200) {
    const std::uint64_t bytes = 1 + (kind & 63U) * 100ULL;
    return kind < 64 ? TreeEntry::hole(bytes)
                     : TreeEntry::data(PhysAddr(in.below(4096) * 64), bytes);
  }
  const std::uint64_t bytes = in.number();
  return kind < 220 ? TreeEntry::hole(bytes) : TreeEntry::data(PhysAddr(in.number()), bytes);
}

// A node that says the truth about its children if the input wants it so.
void put_node(World& world, Input& in) {
  const NodeId id(in.below(kNodes));
  TreeNode node;
  const std::uint8_t kind = in.byte();
  node.level = kind % 4;
  const std::size_t count = 1 + in.below(kNodeMaxEntries);
  const bool many = (kind & 0x80U) != 0;  // all alike: a few bytes of input for a full node
  for (std::size_t i = 0; i < count; ++i) {
    TreeEntry entry;
    if (many && i > 0) {
      entry = node.entries.front();
    } else if (node.level == 0) {
      entry = leaf_entry(in);
    } else {
      entry.ref = in.below(kNodes);
      const auto child = world.kv.records.find(keys::node(entry.child()));
      const auto decoded = child == world.kv.records.end() ? std::unexpected(Error(ENOENT))
                                                           : TreeNode::decode(child->second);
      if (decoded && (kind & 0x40U) == 0) {
        node.level = decoded->level + 1;
        for (const TreeEntry& below : decoded->entries) {
          entry.bytes += below.bytes;
          entry.data_bytes += below.data_bytes;
        }
      } else {
        entry.bytes = in.number();
        entry.data_bytes = std::min(entry.bytes, in.number());
      }
    }
    node.entries.push_back(entry);
  }
  std::string bytes = node.encode();
  if ((kind & 0x20U) != 0) {
    in.damage(bytes);
  }
  world.kv.records[keys::node(id)] = std::move(bytes);
}

Tree any_tree(World& world, Input& in) {
  const std::uint8_t kind = in.byte();
  Tree tree;
  if (kind % 4 == 0) {
    for (std::size_t left = in.below(kInlineExtents + 1); left > 0; --left) {
      TreeEntry entry = leaf_entry(in);
      // What a decoder lets through.
      entry.bytes = std::clamp<std::uint64_t>(entry.bytes, 1, 1 << 20);
      if (!entry.is_hole()) {
        entry = TreeEntry::data(PhysAddr(entry.ref % (kMaxFileBytes - entry.bytes)), entry.bytes);
      } else {
        entry = TreeEntry::hole(entry.bytes);
      }
      tree.extents.push_back(entry);
    }
    return tree;
  }
  Tree::Root root;
  root.id = NodeId(in.below(kNodes));
  const auto record = world.kv.records.find(keys::node(root.id));
  const auto node = record == world.kv.records.end() ? std::unexpected(Error(ENOENT))
                                                     : TreeNode::decode(record->second);
  if (node && kind % 4 != 3) {
    root.level = node->level;
    for (const TreeEntry& entry : node->entries) {
      root.bytes += entry.bytes;
      root.data_bytes += entry.data_bytes;
    }
  } else {
    root.level = static_cast<unsigned>(in.below(kMaxTreeLevel + 1));
    root.bytes = in.number() & kMaxFileBytes;
    root.data_bytes = std::min(root.bytes, in.number());
  }
  tree.root = root;
  return tree;
}

void put_record(World& world, Input& in) {
  std::string value;
  switch (in.below(4)) {
    case 0:
    case 1:
      put_node(world, in);
      return;
    case 2:
      put_le(value, in.number());
      if (in.below(8) == 7) {
        in.damage(value);
      }
      world.kv.records[keys::node_refs(NodeId(in.below(kNodes)))] = std::move(value);
      return;
    default: {
      const std::uint64_t last = in.below(4) == 3 ? in.number() : in.below(64);
      put_le(value, in.below(4) == 3 ? in.number() : 1 + in.below(8));
      put_le(value, in.below(4) == 3 ? in.number() : 2 + in.below(3));
      if (in.below(8) == 7) {
        in.damage(value);
      }
      world.kv.records[keys::block_refs(BlockNo(last))] = std::move(value);
      return;
    }
  }
}

// A place in the rope, or (now and then) what no caller would ask for is left out: ranges lie
// inside, as the editor's contract has it.
std::uint64_t place(Input& in, std::uint64_t total) {
  return total == UINT64_MAX ? in.number() : in.number() % (total + 1);
}

Result<void> read(World& world, const Tree& tree, Input& in) {
  TreeReader reader(world.cache, world.kv, world.seq);
  const std::uint64_t total = tree.bytes();
  const std::uint64_t at = place(in, total);
  switch (in.below(4)) {
    case 0: {
      const std::uint64_t bytes = std::min(total - at, in.number() % kMostMapped);
      std::vector<MappedExtent> extents;
      ODX_TRY(reader.map(tree, FileOffset(at), bytes, extents));
      // Whoever reads by it relies on this.
      std::uint64_t next = at;
      for (const MappedExtent& extent : extents) {
        FUZZ_EXPECT(extent.at.value() == next && extent.extent.bytes > 0);
        next += extent.extent.bytes;
      }
      FUZZ_EXPECT(next == at + bytes);
      return {};
    }
    case 1:
      if (const auto data = ODX_TRY(reader.seek_data(tree, FileOffset(at)))) {
        FUZZ_EXPECT(data->value() >= at && data->value() < total);
      }
      return {};
    case 2: {
      const FileOffset hole = ODX_TRY(reader.seek_hole(tree, FileOffset(at)));
      FUZZ_EXPECT(at == total || (hole.value() >= at && hole.value() <= total));
      return {};
    }
    default: {
      const std::uint64_t bytes = place(in, total - at);
      FUZZ_EXPECT(ODX_TRY(reader.data_bytes(tree, FileOffset(at), bytes)) <= bytes);
      return {};
    }
  }
}

Result<void> edit(World& world, Input& in) {
  KvOverlay overlay(world.kv);
  TreeEditor editor(overlay, world.cache,
                    [&]() -> Result<NodeId> { return NodeId(world.next_node++); });
  std::vector<Tree> trees = world.trees;
  for (std::size_t left = 1 + in.below(3); left > 0; --left) {
    Tree& tree = trees[in.below(kTrees)];
    Tree& other = trees[in.below(kTrees)];
    const std::uint64_t total = tree.bytes();
    const std::uint64_t at = place(in, total);
    switch (in.below(6)) {
      case 0: {
        Tree copy = ODX_TRY(editor.clone(tree));
        FUZZ_EXPECT(copy.bytes() == total);
        ODX_TRY(editor.drop(std::exchange(other, std::move(copy))));
        break;
      }
      case 1: {
        const std::uint64_t bytes = place(in, total - at);
        Tree copy = ODX_TRY(editor.slice(tree, FileOffset(at), bytes));
        FUZZ_EXPECT(copy.bytes() == bytes);
        ODX_TRY(editor.drop(std::exchange(other, std::move(copy))));
        break;
      }
      case 2: {
        if (&tree == &other || other.bytes() > kMaxFileBytes - total) {
          break;
        }
        const std::uint64_t both = total + other.bytes();
        tree = ODX_TRY(editor.concat(std::exchange(tree, {}), std::exchange(other, {})));
        FUZZ_EXPECT(tree.bytes() == both);
        break;
      }
      case 3: {
        const std::uint64_t removed = place(in, total - at);
        Tree middle = in.below(2) == 0
                          ? TreeEditor::of_hole(in.below(10'000))
                          : TreeEditor::of_data(PhysAddr(in.below(64) * 4096), in.below(10'000));
        const std::uint64_t after = total - removed + middle.bytes();
        if (after > kMaxFileBytes) {
          break;
        }
        tree = ODX_TRY(
            editor.splice(std::exchange(tree, {}), FileOffset(at), removed, std::move(middle)));
        FUZZ_EXPECT(tree.bytes() == after);
        break;
      }
      case 4:
        ODX_TRY(editor.drop(std::exchange(tree, {})));
        break;
      default: {
        const auto queued = ODX_TRY(
            overlay.scan(keys::table_begin(keys::kReclaim), keys::table_end(keys::kReclaim), 4));
        for (const KeyValue& entry : queued) {
          ODX_TRY(editor.reclaim(NodeId(keys::number_of(entry.key))));
        }
        break;
      }
    }
  }
  const std::vector<NodeChange> changes = ODX_TRY(editor.finish());
  for (const BlockRun& run : editor.freed_blocks()) {
    FUZZ_EXPECT(run.count > 0 && run.end() > run.first);
  }
  // What was written can be read.
  for (const auto& [key, value] : overlay.writes()) {
    if (value && key[0] == keys::kNode) {
      FUZZ_EXPECT(TreeNode::decode(*value).has_value());
    } else if (value && key[0] == keys::kBlockRefs) {
      FUZZ_EXPECT(BlockRefs::decode({key, *value}).has_value());
    }
  }
  world.seq += 1;
  world.cache.publish(world.seq, changes);
  world.kv.apply(overlay.writes());
  world.cache.trim(world.seq);
  world.trees = std::move(trees);
  for (const Tree& tree : world.trees) {
    std::string bytes;
    tree.encode(bytes);
    Decoder decoder(bytes);
    FUZZ_EXPECT(must(Tree::decode(decoder)) == tree);
  }
  return {};
}

void run(Input in) {
  World world;
  for (std::size_t left = in.below(12); left > 0; --left) {
    put_record(world, in);
  }
  for (Tree& tree : world.trees) {
    tree = any_tree(world, in);
  }
  for (std::size_t left = 24; left > 0 && !in.empty(); --left) {
    // An error is an answer; the state stays as it was before.
    if (in.below(2) == 0) {
      (void)read(world, world.trees[in.below(kTrees)], in);
    } else {
      (void)edit(world, in);
    }
  }
}

}  // namespace

}  // namespace odx::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  odx::fuzz::run({data, size});
  return 0;
}
