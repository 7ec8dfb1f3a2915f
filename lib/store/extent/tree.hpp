// The extent tree's values: what an inode or a token record embeds, and what a node holds.
//
// A file is a rope of extents. A tree of up to kInlineExtents extents is a plain list inside the
// record that owns it; a larger one hangs from one root node. Inner entries hold lengths, not
// offsets, so one subtree can serve at any offset of any file. See tree_editor.cpp for the
// operations and the reference rules.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/codec.hpp"
#include "base/result.hpp"
#include "base/types.hpp"

namespace odx {

inline constexpr std::size_t kInlineExtents = 8;
inline constexpr std::size_t kNodeMaxEntries = 64;
inline constexpr std::size_t kNodeMinEntries = 8;  // of every node but a root
// A root at level L has two children or more of 8^L bytes or more, since sharing lets anybody build
// trees whose every node is as empty as it may be: 20 serves 2^63 bytes.
inline constexpr unsigned kMaxTreeLevel = 21;
// Extents that continue each other are not merged beyond this. What one entry names bounds the
// reference records below it, and so the work of an operation that copies or drops the entry.
inline constexpr std::uint64_t kMaxMergedBytes = 4ULL << 20;

// What an extent of a hole has for an address.
inline constexpr PhysAddr kHoleAddress{UINT64_MAX};

// One entry of a node, at every level: `bytes` of the file. In a leaf (level 0), `ref` is the
// physical address of the first byte or kHoleAddress; above, the id of a child node. `data_bytes`
// counts those that are not holes (in a leaf: 0 or `bytes`).
struct TreeEntry {
  std::uint64_t bytes = 0;
  std::uint64_t data_bytes = 0;
  std::uint64_t ref = 0;

  [[nodiscard]] bool is_hole() const { return ref == kHoleAddress.value(); }  // leaf entries
  [[nodiscard]] PhysAddr address() const { return PhysAddr(ref); }            // leaf entries
  [[nodiscard]] NodeId child() const { return NodeId(ref); }                  // inner entries

  static TreeEntry data(PhysAddr at, std::uint64_t bytes) { return {bytes, bytes, at.value()}; }
  static TreeEntry hole(std::uint64_t bytes) { return {bytes, 0, kHoleAddress.value()}; }
  friend bool operator==(const TreeEntry&, const TreeEntry&) = default;
};

// The blocks that a leaf entry names; each of them counts this entry as one reference.
[[nodiscard]] inline BlockRun blocks_of(const TreeEntry& extent) {
  const BlockNo first = block_of(extent.address());
  return {first, block_of(extent.address() + (extent.bytes - 1)) - first + 1};
}

struct TreeNode {
  unsigned level = 0;
  std::vector<TreeEntry> entries;
  [[nodiscard]] std::string encode() const;
  static Result<TreeNode> decode(std::string_view bytes);
};
using TreeNodePtr = std::shared_ptr<const TreeNode>;

// Corruption unless `node` is what `entry`, of a node at `level`, says of its child. Whoever goes
// down a tree asks this at every step: then levels fall, so that damaged nodes cannot lead round in
// a ring, and lengths add up, so that what was found covers what was asked for.
Result<void> check_child(unsigned level, const TreeEntry& entry, const TreeNode& node);

// A whole rope, as a value. Whoever holds it owns one reference on its root node (or, inline, on
// each extent's blocks); it is copied only through TreeEditor, which keeps the counts.
struct Tree {
  // Level of the root node, with the node in root; or no root and the extents inline.
  struct Root {
    NodeId id;
    unsigned level = 0;
    std::uint64_t bytes = 0;
    std::uint64_t data_bytes = 0;
    // As an entry of a node one level above would name it.
    [[nodiscard]] TreeEntry entry() const { return {bytes, data_bytes, id.value()}; }
    friend bool operator==(const Root&, const Root&) = default;
  };
  std::optional<Root> root;
  std::vector<TreeEntry> extents;  // inline; empty when there is a root

  [[nodiscard]] std::uint64_t bytes() const;
  [[nodiscard]] std::uint64_t data_bytes() const;
  // Nodes on a path from the root to a leaf.
  [[nodiscard]] unsigned depth() const { return root ? root->level + 1 : 0; }

  void encode(std::string& out) const;
  // Reads one from the front of `in`; the caller asks in.finish() for truncation.
  static Result<Tree> decode(Decoder& in);
  friend bool operator==(const Tree&, const Tree&) = default;
};

}  // namespace odx
