// A world of ropes for tests: trees that share nodes, each beside a plain vector of its bytes, over
// an in-memory key/value state, with full recounts of every reference.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "store/extent/node_cache.hpp"
#include "store/extent/tree_editor.hpp"
#include "store/extent/tree_reader.hpp"
#include "store/meta/keys.hpp"
#include "store/meta/kv.hpp"
#include "must.hpp"

namespace odx::test {

class MemoryKv final : public KvReader {
 public:
  Result<std::optional<std::string>> get(std::string_view key) const override {
    const auto at = state_.find(key);
    return at == state_.end() ? std::nullopt : std::optional(at->second);
  }
  Result<std::vector<KeyValue>> scan(std::string_view from, std::string_view end,
                                     std::size_t limit) const override {
    std::vector<KeyValue> found;
    for (auto at = state_.lower_bound(from);
         at != state_.end() && at->first < end && found.size() < limit; ++at) {
      found.push_back({at->first, at->second});
    }
    return found;
  }
  void apply(const WriteSet& writes) {
    for (const auto& [key, value] : writes) {
      if (value) {
        state_[key] = *value;
      } else {
        state_.erase(key);
      }
    }
  }

 private:
  std::map<std::string, std::string, std::less<>> state_;
};

using Bytes = std::vector<std::uint8_t>;

class TreeWorld {
 public:
  struct Rope {
    Tree tree;
    Bytes model;
  };
  struct OldView {  // what a reader saw, and must go on seeing
    Tree tree;
    Bytes model;
    TxnSeq seq;
  };
  std::vector<Rope> ropes;
  std::vector<OldView> views;

  // A small cache evicts nodes, so that they are read back.
  explicit TreeWorld(std::size_t cached_nodes = 64) : cache_(cached_nodes) {}

  // What the device holds at an address: anything, as long as it is always the same.
  static std::uint8_t device_byte(std::uint64_t address) {
    return static_cast<std::uint8_t>((address * 0x9E3779B97F4A7C15ULL) >> 56 | 1);
  }

  // Runs `work` as one transaction.
  template <class Work>
  void transact(Work work) {
    KvOverlay overlay(kv_);
    TreeEditor editor(overlay, cache_, [this]() -> Result<NodeId> { return NodeId(++last_node_); });
    work(editor);
    last_touched = editor.nodes_touched();
    const std::vector<NodeChange> changes = must(editor.finish());
    cache_.publish(seq_ + 1, changes);
    kv_.apply(overlay.writes());
    seq_ += 1;
    for (const BlockRun& run : editor.freed_blocks()) {
      for (std::uint64_t i = 0; i < run.count; ++i) {
        REQUIRE(used_.erase((run.first + i).value()) == 1);  // freed once, and it was used
      }
    }
    cache_.trim(views.empty() ? seq_ : views.front().seq);
  }

  // A rope of one extent in fresh blocks, starting `skip` bytes into the first.
  Tree fresh_extent(std::uint64_t skip, std::uint64_t bytes) {
    const std::uint64_t first = next_block_;
    const std::uint64_t last = (first * kBlockBytes + skip + bytes - 1) / kBlockBytes;
    for (std::uint64_t block = first; block <= last; ++block) {
      used_.insert(block);
    }
    next_block_ = last + 2;  // never neighbours by accident
    return TreeEditor::of_data(PhysAddr(first * kBlockBytes + skip), bytes);
  }
  // The same, and its bytes appended to `model`.
  Tree fresh_extent(std::uint64_t skip, std::uint64_t bytes, Bytes& model) {
    Tree tree = fresh_extent(skip, bytes);
    for (std::uint64_t i = 0; i < bytes; ++i) {
      model.push_back(device_byte(tree.extents.front().ref + i));
    }
    return tree;
  }

  Bytes read(const Tree& tree, std::uint64_t at, std::uint64_t bytes, TxnSeq seq) {
    std::vector<MappedExtent> extents;
    TreeReader reader(cache_, kv_, seq);
    must(reader.map(tree, FileOffset(at), bytes, extents));
    Bytes out;
    for (const MappedExtent& piece : extents) {
      REQUIRE(piece.at.value() == at + out.size());
      for (std::uint64_t i = 0; i < piece.extent.bytes; ++i) {
        out.push_back(piece.extent.is_hole() ? 0 : device_byte(piece.extent.ref + i));
      }
    }
    return out;
  }

  void check_contents() {
    for (const Rope& rope : ropes) {
      REQUIRE(rope.tree.bytes() == rope.model.size());
      REQUIRE(read(rope.tree, 0, rope.model.size(), seq_) == rope.model);
      check_sums(rope);
    }
    for (const OldView& view : views) {
      REQUIRE(read(view.tree, 0, view.model.size(), view.seq) == view.model);
    }
  }

  // Every node and every block counted anew from the roots, against P, R and the used blocks.
  void check_references() {
    node_refs_.clear();
    block_refs_.clear();
    for (const Rope& rope : ropes) {
      if (rope.tree.root) {
        visit(rope.tree.root->id, rope.tree.root->level, true, rope.tree.root->bytes,
              rope.tree.root->data_bytes);
      } else {
        REQUIRE(rope.tree.extents.size() <= kInlineExtents);
        count_extents(rope.tree.extents);
      }
    }
    for (const KeyValue& queued : table(keys::kReclaim)) {
      const NodeId id(keys::number_of(queued.key));
      const auto node = must(cache_.get(id, NodeCache::kNewest, kv_));
      visit(id, node->level, true, 0, 0, true);
    }
    std::map<std::uint64_t, std::uint64_t> recorded;
    for (const KeyValue& record : table(keys::kNodeRefs)) {
      recorded[keys::number_of(record.key)] = load_le<std::uint64_t>(record.value.data());
    }
    for (const auto& [id, refs] : node_refs_) {
      REQUIRE((recorded.contains(id) ? recorded[id] : 1) == refs);
      recorded.erase(id);
    }
    REQUIRE(recorded.empty());
    REQUIRE(table(keys::kNode).size() == node_refs_.size());

    std::map<std::uint64_t, std::uint64_t> block_records;
    std::uint64_t last_end = 0;
    std::uint64_t last_refs = 0;
    for (const KeyValue& kv : table(keys::kBlockRefs)) {
      const BlockRefs::Record record = must(BlockRefs::decode(kv));
      REQUIRE((record.run.first.value() > last_end || record.refs != last_refs));  // canonical
      REQUIRE(record.run.first.value() >= last_end);
      last_end = record.run.end().value();
      last_refs = record.refs;
      for (std::uint64_t i = 0; i < record.run.count; ++i) {
        block_records[(record.run.first + i).value()] = record.refs;
      }
    }
    std::set<std::uint64_t> named;
    for (const auto& [block, refs] : block_refs_) {
      REQUIRE((block_records.contains(block) ? block_records[block] : 1) == refs);
      block_records.erase(block);
      named.insert(block);
    }
    REQUIRE(block_records.empty());
    REQUIRE(named == used_);
  }

  void reclaim_all() {
    for (;;) {
      const auto queued = table(keys::kReclaim);
      if (queued.empty()) {
        return;
      }
      transact([&](TreeEditor& editor) {
        must(editor.reclaim(NodeId(keys::number_of(queued.front().key))));
      });
    }
  }

  [[nodiscard]] TxnSeq seq() const { return seq_; }
  [[nodiscard]] std::size_t used_blocks() const { return used_.size(); }
  std::size_t nodes() { return table(keys::kNode).size(); }
  std::size_t last_touched = 0;

 private:
  std::vector<KeyValue> table(char name) {
    return must(kv_.scan(keys::table_begin(name), keys::table_end(name), SIZE_MAX));
  }

  void count_extents(const std::vector<TreeEntry>& extents) {
    for (const TreeEntry& extent : extents) {
      REQUIRE(extent.bytes > 0);
      if (!extent.is_hole()) {
        const BlockRun run = blocks_of(extent);
        for (std::uint64_t i = 0; i < run.count; ++i) {
          ++block_refs_[(run.first + i).value()];
        }
      }
    }
  }

  void visit(NodeId id, unsigned level, bool is_root, std::uint64_t bytes, std::uint64_t data,
             bool sums_unknown = false) {
    if (++node_refs_[id.value()] > 1) {
      return;  // its entries count once, however many name it
    }
    const auto node = must(cache_.get(id, NodeCache::kNewest, kv_));
    REQUIRE(node->level == level);
    REQUIRE(node->entries.size() <= kNodeMaxEntries);
    REQUIRE((is_root || node->entries.size() >= kNodeMinEntries));
    std::uint64_t bytes_below = 0;
    std::uint64_t data_below = 0;
    for (const TreeEntry& entry : node->entries) {
      bytes_below += entry.bytes;
      data_below += entry.data_bytes;
    }
    if (!sums_unknown) {
      REQUIRE(bytes_below == bytes);
      REQUIRE(data_below == data);
    }
    if (level == 0) {
      count_extents(node->entries);
    } else {
      for (const TreeEntry& entry : node->entries) {
        visit(entry.child(), level - 1, false, entry.bytes, entry.data_bytes);
      }
    }
  }

  // data_bytes, SEEK_DATA and SEEK_HOLE at a few places, against the extents themselves.
  void check_sums(const Rope& rope) {
    std::vector<MappedExtent> extents;
    TreeReader reader(cache_, kv_, seq_);
    must(reader.map(rope.tree, FileOffset(0), rope.tree.bytes(), extents));
    std::uint64_t data = 0;
    for (const MappedExtent& piece : extents) {
      const std::uint64_t at = piece.at.value();
      data += piece.extent.data_bytes;
      if (piece.extent.is_hole()) {
        REQUIRE(must(reader.seek_hole(rope.tree, piece.at)) == piece.at);
        const auto next = must(reader.seek_data(rope.tree, piece.at));
        REQUIRE((!next || next->value() >= at + piece.extent.bytes));
      } else {
        REQUIRE(must(reader.seek_data(rope.tree, piece.at)) == piece.at);
        REQUIRE(must(reader.seek_hole(rope.tree, piece.at)).value() >= at + piece.extent.bytes);
      }
      REQUIRE(must(reader.data_bytes(rope.tree, FileOffset(0), at + piece.extent.bytes)) == data);
    }
    REQUIRE(rope.tree.data_bytes() == data);
  }

  MemoryKv kv_;
  NodeCache cache_;
  TxnSeq seq_;
  std::uint64_t last_node_ = 0;
  std::uint64_t next_block_ = 1;
  std::set<std::uint64_t> used_;
  std::map<std::uint64_t, std::uint64_t> node_refs_;
  std::map<std::uint64_t, std::uint64_t> block_refs_;
};

}  // namespace odx::test
