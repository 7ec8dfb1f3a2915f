// check on trees, blocks, checksums, bitmaps and tokens: each damage is named for what it is.
#include "check_sample.hpp"
#include "store/extent/block_refs.hpp"

namespace odx {
namespace {

using test::counted;
using test::Damaged;
using test::must;
using test::Sample;
using test::text;

TEST_CASE("tree nodes") {
  Damaged store;
  const Sample& s = Sample::get();
  const std::vector<KeyValue> shared = store.table(keys::kNodeRefs);
  REQUIRE_FALSE(shared.empty());
  const std::string node = "tree node " + std::to_string(keys::number_of(shared[0].key));
  const auto refs = load_le<std::uint64_t>(shared[0].value.data());
  SECTION("a wrong reference count") {
    store.put(shared[0].key, counted(refs + 1));
    store.require({node + ": reference count is " + std::to_string(refs + 1) + ", but it has " +
                   std::to_string(refs)});
  }
  SECTION("a lost reference count") {
    store.erase(shared[0].key);
    store.require({node + ": reference count is 1, but it has " + std::to_string(refs)});
  }
  SECTION("a malformed reference count") {
    store.put(shared[0].key, counted(1));
    store.require({node + ": malformed reference count"});
  }
  SECTION("a reference count of nothing") {
    store.put(keys::node_refs(NodeId(0)), counted(2));
    store.require({"reference count of tree node 0, which does not exist"});
  }
  SECTION("a node that nothing refers to") {
    TreeNode lost;
    lost.entries.push_back(TreeEntry::hole(1));
    store.put(keys::node(NodeId(0)), lost.encode());
    store.require({"nothing refers to tree node 0"});
  }
  SECTION("a node that is missing") {
    store.erase(keys::node(store.inode(s.big).tree.root->id));
    store.require_among("inode " + text(s.big) + " refers to tree node");
  }
  SECTION("a node that cannot be decoded") {
    store.put(keys::node(store.inode(s.big).tree.root->id), "junk");
    store.require_among("malformed tree node");
  }
  SECTION("a root with other sums") {
    Inode inode = store.inode(s.big);
    inode.tree.root->data_bytes -= 4096;
    store.put(inode);
    store.require({"inode " + text(s.big) + ": root"});
  }
  SECTION("a root at another level") {
    Inode inode = store.inode(s.big);
    inode.tree.root->level += 1;
    store.put(inode);
    store.require({"inode " + text(s.big) + ": root"});
  }
  SECTION("a child with other sums") {
    const NodeId root = store.inode(s.part).tree.root->id;
    TreeNode inner = must(TreeNode::decode(store.value(keys::node(root))));
    REQUIRE(inner.level == 1);
    // As much more in one child as less in the next: the node's own sum stays.
    inner.entries[0].bytes += 1;
    inner.entries[1].bytes -= 1;
    store.put(keys::node(root), inner.encode());
    store.require({"tree node " + std::to_string(root.value()) + ": child",
                   "tree node " + std::to_string(root.value()) + ": child"});
  }
  SECTION("a child that is no leaf") {
    const NodeId root = store.inode(s.part).tree.root->id;
    TreeNode inner = must(TreeNode::decode(store.value(keys::node(root))));
    inner.level = 2;
    store.put(keys::node(root), inner.encode());
    store.require_among("at level 2 has tree node");
  }
  SECTION("a child that is too empty") {
    const NodeId root = store.inode(s.part).tree.root->id;
    const TreeNode inner = must(TreeNode::decode(store.value(keys::node(root))));
    TreeNode sparse;
    sparse.entries.push_back(TreeEntry::hole(inner.entries[0].bytes));
    store.put(keys::node(inner.entries[0].child()), sparse.encode());
    store.require_among("has 1 entries, fewer than " + std::to_string(kNodeMinEntries));
  }
  SECTION("a queue entry lost") {
    const std::string key = store.table(keys::kReclaim).at(0).key;
    store.erase(key);
    store.require({"nothing refers to tree node " + std::to_string(keys::number_of(key))});
  }
  SECTION("a queue entry for nothing") {
    store.put(keys::reclaim(NodeId(0)), "");
    store.require({"the reclaim queue refers to tree node 0, which does not exist"});
  }
  SECTION("a malformed queue entry") {
    const std::string key = store.table(keys::kReclaim).at(0).key;
    store.put(key + "x", "");
    store.require({"malformed record in the reclaim queue"});
  }
}

TEST_CASE("block references") {
  Damaged store;
  const Sample& s = Sample::get();
  const std::vector<KeyValue> records = store.table(keys::kBlockRefs);
  REQUIRE(records.size() >= 2);
  const BlockRefs::Record record = must(BlockRefs::decode(records[0]));
  const std::string first = std::to_string(record.run.first.value());
  const auto refs_of = [](std::uint64_t count, std::uint64_t refs) {
    return counted(count) + counted(refs);
  };
  SECTION("a lost one") {
    store.erase(records[0].key);
    store.require({": reference count is 1, but it has " + std::to_string(record.refs)});
  }
  SECTION("a wrong one") {
    store.put(records[0].key, refs_of(record.run.count, record.refs + 5));
    store.require({": reference count is " + std::to_string(record.refs + 5) + ", but it has " +
                   std::to_string(record.refs)});
  }
  SECTION("one for free blocks") {
    store.put(keys::block_refs(BlockNo(16000)), refs_of(3, 2));
    store.require({"blocks 15998 to 16000: reference count is 2, but nothing refers to it"});
  }
  SECTION("one for blocks that do not exist") {
    store.put(keys::block_refs(BlockNo(1ULL << 40)), refs_of(1, 2));
    store.require({"block 1099511627776: reference count is 2, but nothing refers to it"});
  }
  SECTION("one for blocks that are used once") {
    const TreeEntry extent = store.inode(s.small).tree.extents.at(0);
    store.put(keys::block_refs(blocks_of(extent).first), refs_of(1, 2));
    store.require({"reference count is 2, but it has 1"});
  }
  SECTION("one in two parts") {
    REQUIRE(record.run.count > 1);
    store.put(keys::block_refs(record.run.first), refs_of(1, record.refs));
    store.put(records[0].key, refs_of(record.run.count - 1, record.refs));
    store.require({"but not in one record"});
  }
  SECTION("two for one block") {
    store.put(keys::block_refs(record.run.end()), refs_of(record.run.count + 1, record.refs));
    store.require_among("two reference counts for block " + first);
  }
  SECTION("a malformed one") {
    store.put(records[0].key, refs_of(record.run.count, 1));
    store.require_among("impossible block reference record");
  }
  SECTION("an extent behind the end of the device") {
    Inode inode = store.inode(s.empty);
    inode.tree.extents.push_back(TreeEntry::data(PhysAddr(1ULL << 40), 5000));
    store.put(inode);
    store.require({"inode " + text(s.empty) +
                   " names blocks 268435456 to 268435457, but the device has 1024 blocks"});
  }
  SECTION("two files that both claim a block") {
    Inode inode = store.inode(s.empty);
    inode.tree.extents.push_back(store.inode(s.small).tree.extents.at(0));
    store.put(inode);
    store.require({": reference count is 1, but it has 2"});
  }
}

TEST_CASE("checksum records") {
  Damaged store;
  const std::vector<KeyValue> records = store.table(keys::kChecksums);
  REQUIRE(records.size() > 2);
  SECTION("a lost one in the middle") {
    store.erase(records[1].key);
    const std::uint64_t first = keys::number_of(records[1].key) * keys::kChecksumsPerRecord;
    store.require({"blocks " + std::to_string(first) + " to " + std::to_string(first + 63) +
                   ": no checksum"});
  }
  SECTION("the last one") {
    store.erase(records.back().key);
    store.require_among(": no checksum");
  }
  SECTION("all of them") {
    for (const KeyValue& record : records) {
      store.erase(record.key);
    }
    store.require_among(": no checksum");
  }
  SECTION("a short one") {
    store.put(records[1].key, records[1].value.substr(4));
    store.require({"malformed checksum record"});
  }
  SECTION("one for blocks that do not exist") {
    store.put(keys::numbered(keys::kChecksums, 256), records[0].value);
    store.require({"checksum record 256, where there are no blocks"});
  }
}

TEST_CASE("saved bitmaps") {
  Damaged store;
  const std::string key = keys::bitmap(0);
  std::string bitmap = store.value(key);
  SECTION("used is free") {
    bitmap[0] = static_cast<char>(bitmap[0] & ~2);
    store.put(key, bitmap);
    store.require({"block 1: free in the saved bitmap, but in use"});
  }
  SECTION("free is used") {
    bitmap[110] = '\xff';
    bitmap[111] = '\x01';
    store.put(key, bitmap);
    store.require({"blocks 880 to 888: in use in the saved bitmap, but nothing refers to it"});
  }
  SECTION("the last block") {
    bitmap.back() = '\x80';
    store.put(key, bitmap);
    store.require({"block 1023: in use in the saved bitmap"});
  }
  SECTION("missing") {
    store.erase(key);
    store.require({"no bitmap of segment 0"});
  }
  SECTION("malformed") {
    store.put(key, bitmap + "x");
    store.require({"malformed bitmap of segment 0"});
  }
  SECTION("of no segment") {
    store.put(keys::bitmap(1), bitmap);
    store.require({"malformed bitmap of segment 1"});
  }
  SECTION("of an unclean store: nothing to compare") {
    store.erase(keys::counter("clean"));
    store.erase(key);
    REQUIRE(store.check().clean());
  }
}

TEST_CASE("tokens") {
  Damaged store;
  const KeyValue token = store.table(keys::kToken).at(0);
  const KeyValue expiry = store.table(keys::kTokenExpiry).at(0);
  SECTION("without expiry") {
    store.erase(expiry.key);
    store.require({"has no expiry record"});
  }
  SECTION("expiring at another time") {
    store.erase(expiry.key);
    std::string moved = expiry.key;
    moved[8] = static_cast<char>(moved[8] + 1);
    store.put(moved, "");
    store.require({"has no expiry record", "which does not end then"});
  }
  SECTION("expiry of no token") {
    std::string other = expiry.key;
    other.back() = static_cast<char>(other.back() + 1);
    store.put(other, "");
    store.require({"which does not end then"});
  }
  SECTION("malformed") {
    store.put(token.key, "junk");
    store.require_among("token record of an unknown version");
  }
  SECTION("malformed keys") {
    store.put("T123", token.value);
    store.put("Y123", "");
    store.require({"malformed token key", "malformed token expiry key"});
  }
  SECTION("gone, with all that it held") {
    store.erase(token.key);
    store.erase(expiry.key);
    store.require_among("nothing refers to tree node");
  }
}

}  // namespace
}  // namespace odx
