// Looking things up in a rope as of a snapshot.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "base/result.hpp"
#include "base/types.hpp"
#include "store/extent/node_cache.hpp"
#include "store/extent/tree.hpp"

namespace odx {

// A piece of a rope: `extent.bytes` at file offset `at`.
struct MappedExtent {
  FileOffset at;
  TreeEntry extent;
};

// Cheap to make. One thread.
class TreeReader {
 public:
  TreeReader(NodeCache& cache, const KvReader& kv, TxnSeq seq)
      : cache_(cache), kv_(kv), seq_(seq) {}

  // Appends the extents that cover [at, at + bytes), cut to that range; the range is cut to the
  // rope first. Neighbours are not merged.
  Result<void> map(const Tree& tree, FileOffset at, std::uint64_t bytes,
                   std::vector<MappedExtent>& out);

  // The first byte at or behind `at` that is data (is in a hole). The end of the rope counts as a
  // hole; nullopt when there is no data behind `at`.
  Result<std::optional<FileOffset>> seek_data(const Tree& tree, FileOffset at);
  Result<FileOffset> seek_hole(const Tree& tree, FileOffset at);

  // Bytes of [at, at + bytes) that are not holes; reads only the nodes on the range's two ends.
  Result<std::uint64_t> data_bytes(const Tree& tree, FileOffset at, std::uint64_t bytes);

 private:
  // What an entry of a node at `level` names.
  Result<TreeNodePtr> child(unsigned level, const TreeEntry& entry);
  Result<void> map_entries(unsigned level, const std::vector<TreeEntry>& entries,
                           std::uint64_t base, std::uint64_t from, std::uint64_t to,
                           std::vector<MappedExtent>& out);
  Result<std::optional<std::uint64_t>> find(unsigned level, const std::vector<TreeEntry>& entries,
                                            std::uint64_t base, std::uint64_t from, bool data);
  Result<std::uint64_t> count(unsigned level, const std::vector<TreeEntry>& entries,
                              std::uint64_t base, std::uint64_t from, std::uint64_t to);
  NodeCache& cache_;
  const KvReader& kv_;
  TxnSeq seq_;
};

}  // namespace odx
