// check: a store with everything in it is clean, and each single damage is named for what it is.
#include "store/check/check.hpp"

#include <algorithm>
#include <cstring>
#include <fstream>
#include <map>

#include "name_world.hpp"
#include "odx/offload.h"
#include "store/device/segment_device.hpp"
#include "store/extent/block_refs.hpp"
#include "store/inode/directory.hpp"
#include "store/meta/keys.hpp"

namespace odx {
namespace {

using test::must;
using test::NameWorld;

// A store, closed, with fragmented files, clones, a token, an orphan and a reclaim queue.
class Sample {
 public:
  static const Sample& get() {
    static Sample sample;
    return sample;
  }

  InodeNo big, clone, part, small, empty, orphan, dir_a, dir_b, inner;
  Uuid uuid{};
  std::string dir;

 private:
  Sample() {
    Names& names = world_.names();
    uuid = world_.core().super.uuid;
    dir = world_.store_dir();
    dir_a = world_.mkdir(kRootInode, "a");
    dir_b = world_.mkdir(kRootInode, "b");
    inner = world_.mkdir(dir_a, "inner");
    empty = world_.file(dir_a, "empty");
    small = world_.file(dir_a, "small");
    must(names.link(small, dir_b, "other name"));
    must(names.set_xattr(small, "user.one", "1", Names::XattrMode::kAny));
    must(names.set_xattr(small, "user.two", "2", Names::XattrMode::kAny));
    must(names.create(dir_b, "link", NameWorld::symlink("../a")));
    write(small, 0, 10000);

    big = world_.file(kRootInode, "big");
    fragment(big, 300);
    clone = world_.file(kRootInode, "clone");
    copy(big, 0, clone, 0, UINT32_MAX);
    part = world_.file(kRootInode, "part");
    copy(big, 123457, part, 0, 1000000);
    write(clone, 50000, 5000);
    take_token(big, 65536, 1 << 20);

    orphan = world_.file(kRootInode, "gone");
    fragment(orphan, 20);
    must(names.unlink(kRootInode, "gone"));
    const InodeNo dropped = world_.file(kRootInode, "dropped");
    fragment(dropped, 100);
    must(names.unlink(kRootInode, "dropped"));
    must(names.reap(dropped));
    world_.close();
  }

  void write(InodeNo ino, std::uint64_t at, std::size_t bytes) {
    std::vector<std::byte> data(bytes);
    for (std::size_t i = 0; i < bytes; ++i) {
      data[i] = static_cast<std::byte>(at + i * 7 + 1);
    }
    must(world_.files().write(ino, FileOffset(at), data));
  }
  // Pieces with holes between them.
  void fragment(InodeNo ino, std::uint64_t pieces) {
    for (std::uint64_t i = 0; i < pieces; ++i) {
      write(ino, i * 8192, 4096);
    }
  }
  void copy(InodeNo from, std::uint64_t at, InodeNo to, std::uint64_t to_at, std::uint64_t bytes) {
    must(world_.files().copy_range(from, FileOffset(at), to, FileOffset(to_at), bytes));
  }
  void take_token(InodeNo ino, std::uint64_t at, std::uint64_t bytes) {
    odx_offload call{};
    call.body.read_in.size = sizeof(odx_read_input);
    call.body.read_in.file_offset = at;
    call.body.read_in.copy_length = bytes;
    OffloadCaller caller;
    caller.readable = true;
    REQUIRE(world_.store().tokens().offload_read(ino, caller, call) == 0);
  }

  NameWorld world_;
};

// A copy of the sample whose records are changed behind the store's back.
class Damaged {
 public:
  Damaged() {
    namespace fs = std::filesystem;
    for (const auto& entry : fs::directory_iterator(Sample::get().dir)) {
      if (entry.path().filename() != "data") {
        fs::copy(entry.path(), path(entry.path().filename()), fs::copy_options::recursive);
      }
    }
    fs::create_directory_symlink(Sample::get().dir + "/data", path("data"));
    meta_ = must(MetaStore::open(
        dir_.path(), Sample::get().uuid, MetaOptions{}, [] { return Result<void>{}; },
        [](TxnSeq) {}));
  }

  [[nodiscard]] std::string path(const std::string& name) const { return dir_.file(name); }
  MetaStore& meta() { return *meta_; }

  void put(const std::string& key, const std::string& value) {
    must(meta_->commit({{key, value}}));
  }
  void erase(const std::string& key) { must(meta_->commit({{key, std::nullopt}})); }
  std::string value(const std::string& key) {
    const auto found = must(meta_->get(key));
    REQUIRE(found);
    return *found;
  }
  std::vector<KeyValue> table(char table) {
    return must(meta_->scan(keys::table_begin(table), keys::table_end(table), 100000));
  }
  Inode inode(InodeNo ino) { return must(Inode::decode(ino, value(keys::inode(ino)))); }
  void put(const Inode& inode) { put(keys::inode(inode.ino), inode.encode()); }
  DirectoryEntry entry(InodeNo dir, std::string_view name) {
    const auto found = must(find_entry(*meta_, Sample::get().uuid, dir, name));
    REQUIRE(found);
    return *found;
  }
  void put_entry(InodeNo dir, std::uint64_t cookie, std::string_view name, InodeNo ino,
                 std::uint32_t type) {
    std::string value;
    put_le(value, ino.value());
    put_le(value, type);
    put(keys::dirent(dir, cookie), value.append(name));
  }

  CheckReport check(const CheckOptions& options = {}) {
    must(meta_->close());
    return must(check_store(dir_.path(), options));
  }
  // Exactly these problems, in any order; each given by a part of it.
  void require(std::vector<std::string> expected) {
    const CheckReport report = check();
    for (const std::string& problem : report.problems) {
      UNSCOPED_INFO(problem);
      const auto at = std::find_if(expected.begin(), expected.end(), [&](const std::string& part) {
        return problem.find(part) != std::string::npos;
      });
      REQUIRE(at != expected.end());
      expected.erase(at);
    }
    INFO((expected.empty() ? "" : "missing: " + expected.front()));
    REQUIRE(expected.empty());
    REQUIRE_FALSE(report.clean());
  }
  // Among others, as the damage has consequences.
  void require_among(const std::string& expected) {
    const CheckReport report = check();
    for (const std::string& problem : report.problems) {
      UNSCOPED_INFO(problem);
    }
    REQUIRE(std::any_of(report.problems.begin(), report.problems.end(), [&](const auto& problem) {
      return problem.find(expected) != std::string::npos;
    }));
  }

 private:
  test::TempDir dir_;
  std::unique_ptr<MetaStore> meta_;
};

std::string counted(std::uint64_t n) {
  std::string value;
  put_le(value, n);
  return value;
}

std::string text(InodeNo ino) { return std::to_string(ino.value()); }

TEST_CASE("a store with everything in it is clean") {
  const Sample& sample = Sample::get();
  CheckOptions options;
  options.data = true;
  std::map<std::string, int> seen;
  options.progress = [&](std::string_view what, std::uint64_t done, std::uint64_t total) {
    REQUIRE((total == 0 || done <= total));
    ++seen[std::string(what)];
  };
  const CheckReport report = must(check_store(sample.dir, options));
  for (const std::string& problem : report.problems) {
    UNSCOPED_INFO(problem);
  }
  REQUIRE(report.clean());
  REQUIRE(report.inodes == 11);
  REQUIRE(report.directories == 4);
  REQUIRE(report.entries == 10);
  REQUIRE(report.xattrs == 2);
  REQUIRE(report.orphans == 1);
  REQUIRE(report.tokens == 1);
  REQUIRE(report.queued == 1);
  REQUIRE(report.nodes > 10);
  REQUIRE(report.used_blocks >= 300 + 3 + 20 + 100);
  // Cloned, part of it once more, and half of what is between was written over.
  REQUIRE(report.data_bytes > 2 * 300 * kBlockBytes);
  REQUIRE(report.data_bytes > report.used_blocks * kBlockBytes);
  REQUIRE(report.verified_blocks == report.used_blocks);
  REQUIRE(seen["inodes"] > 0);
  REQUIRE(seen["data"] > 1);
}

TEST_CASE("an untouched copy is clean") {
  Damaged store;
  REQUIRE(store.check().clean());
}

TEST_CASE("link counts, entry counts, parents") {
  Damaged store;
  const Sample& s = Sample::get();
  SECTION("of a file") {
    Inode inode = store.inode(s.small);
    inode.nlink = 3;
    store.put(inode);
    store.require({"inode " + text(s.small) + ": link count is 3, but it has 2 names"});
  }
  SECTION("of a directory") {
    Inode inode = store.inode(s.dir_a);
    inode.nlink = 2;
    store.put(inode);
    store.require({"directory " + text(s.dir_a) + ": link count is 2, but should be 3"});
  }
  SECTION("entry count") {
    Inode inode = store.inode(s.dir_b);
    inode.entry_count = 7;
    store.put(inode);
    store.require({"directory " + text(s.dir_b) + ": entry count is 7, but it has 2 entries"});
  }
  SECTION("parent") {
    Inode inode = store.inode(s.inner);
    inode.parent = s.dir_b;
    store.put(inode);
    store.require({"directory " + text(s.inner) + " lies in directory " + text(s.dir_a) +
                   ", but takes " + text(s.dir_b) + " for its parent"});
  }
  SECTION("the root's parent") {
    Inode inode = store.inode(kRootInode);
    inode.parent = s.dir_b;
    store.put(inode);
    store.require({"the root directory takes directory"});
  }
  SECTION("extended attributes") {
    Inode inode = store.inode(s.small);
    inode.xattr_count = 1;
    store.put(inode);
    store.require({"extended attribute count is 1, but it has 2"});
  }
  SECTION("an inode that cannot be decoded") {
    store.put(keys::inode(s.empty), "junk");
    store.require({"inode " + text(s.empty) + ": malformed",
                   "entry \"empty\" leads to inode " + text(s.empty) + ", which does not exist"});
  }
  SECTION("no root") {
    store.erase(keys::inode(kRootInode));
    store.require_among("there is no root directory");
  }
  SECTION("directories in a ring") {
    // b moves into a/inner and a into b; only the way from the root is lost.
    store.erase(keys::dirent(kRootInode, store.entry(kRootInode, "a").cookie));
    store.erase(keys::dirent(kRootInode, store.entry(kRootInode, "b").cookie));
    store.put_entry(s.inner, first_cookie(s.uuid, "b"), "b", s.dir_b, S_IFDIR);
    store.put_entry(s.dir_b, first_cookie(s.uuid, "a"), "a", s.dir_a, S_IFDIR);
    const auto change = [&](InodeNo ino, int entries, InodeNo parent) {
      Inode inode = store.inode(ino);
      inode.entry_count += static_cast<std::uint64_t>(entries);
      inode.nlink += static_cast<std::uint32_t>(entries);
      inode.parent = parent;
      store.put(inode);
    };
    change(kRootInode, -2, kRootInode);
    change(s.inner, 1, s.dir_a);
    change(s.dir_b, 1, s.inner);
    change(s.dir_a, 0, s.dir_b);
    store.require({"lies below itself"});
  }
}

TEST_CASE("directory entries") {
  Damaged store;
  const Sample& s = Sample::get();
  const DirectoryEntry entry = store.entry(s.dir_a, "small");
  const std::string key = keys::dirent(s.dir_a, entry.cookie);
  const std::string in_a = "directory " + text(s.dir_a) + ": ";
  SECTION("one is lost") {
    store.erase(key);
    store.require({"inode " + text(s.small) + ": link count is 2, but it has 1 names",
                   in_a + "entry count is 3, but it has 2 entries"});
  }
  SECTION("of a directory") {
    store.erase(keys::dirent(s.dir_a, store.entry(s.dir_a, "inner").cookie));
    store.require({"directory " + text(s.inner) + " has 0 names instead of 1",
                   in_a + "link count is 3, but should be 2",
                   in_a + "entry count is 3, but it has 2 entries"});
  }
  SECTION("wrong type") {
    store.put_entry(s.dir_a, entry.cookie, "small", s.small, S_IFLNK);
    store.require({in_a + "entry \"small\" has type 0120000, its inode"});
  }
  SECTION("leads nowhere") {
    store.put_entry(s.dir_a, entry.cookie, "small", InodeNo(1000), S_IFREG);
    store.require({in_a + "entry \"small\" leads to inode 1000, which does not exist",
                   "link count is 2, but it has 1 names"});
  }
  SECTION("under another hash") {
    store.erase(key);
    store.put_entry(s.dir_a, 4711, "small", s.small, S_IFREG);
    store.require({in_a + "entry \"small\" is filed under a hash that is not its own"});
  }
  SECTION("twice") {
    store.put_entry(s.dir_a, entry.cookie + 1, "small", s.small, S_IFREG);
    store.require({in_a + "entry \"small\" is there twice", "link count is 2, but it has 3 names",
                   in_a + "entry count is 3, but it has 4 entries"});
  }
  SECTION("malformed, with a name that spans lines") {
    store.put_entry(s.dir_a, entry.cookie, "a/\n", s.small, S_IFREG);
    store.require({in_a + "impossible directory entry", "link count is 2, but it has 1 names",
                   in_a + "entry count is 3, but it has 2 entries"});
  }
  SECTION("odd names are shown on one line") {
    store.put_entry(s.dir_a, 4711, "a\n\"b", s.small, S_IFREG);
    store.require_among("entry \"a\\x0a\\\"b\" is filed");
  }
  SECTION("in what is no directory") {
    store.put_entry(s.small, first_cookie(s.uuid, "x"), "x", s.small, S_IFREG);
    store.put_entry(InodeNo(1000), first_cookie(s.uuid, "y"), "y", s.small, S_IFREG);
    store.require({"entry \"x\" lies in inode " + text(s.small) + ", which is not a directory",
                   "entry \"y\" lies in inode 1000, which does not exist",
                   "link count is 2, but it has 4 names"});
  }
}

TEST_CASE("orphans and extended attributes") {
  Damaged store;
  const Sample& s = Sample::get();
  SECTION("an orphan without its record") {
    store.erase(keys::orphan(s.orphan));
    store.require({"inode " + text(s.orphan) + " has no links, but is not recorded as an orphan"});
  }
  SECTION("a record for what has links") {
    store.put(keys::orphan(s.small), std::string(1, '\0'));
    store.require({"inode " + text(s.small) + " is recorded as an orphan, but has links"});
  }
  SECTION("a record for nothing") {
    store.put(keys::orphan(InodeNo(1000)), std::string(1, '\0'));
    store.require({"orphan record of inode 1000, which does not exist"});
  }
  SECTION("a malformed record") {
    store.put(keys::orphan(s.orphan), "xyz");
    store.require({"malformed orphan record"});
  }
  SECTION("an attribute of nothing") {
    store.put(keys::xattr(InodeNo(1000), "user.x"), "v");
    store.require({"extended attribute \"user.x\" of inode 1000, which does not exist"});
  }
  SECTION("an attribute that is too large") {
    store.put(keys::xattr(s.small, "user.one"), std::string(70000, 'x'));
    store.require({"extended attribute \"user.one\" is too large"});
  }
}

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
    store.require({node + ": malformed reference count", node + ": reference count is 1"});
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
                   " names blocks 268435456 to 268435457, but the device has 16384 blocks"});
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
    bitmap[2000] = '\xff';
    bitmap[2001] = '\x01';
    store.put(key, bitmap);
    store.require({"blocks 16000 to 16008: in use in the saved bitmap, but nothing refers to it"});
  }
  SECTION("the last block") {
    bitmap.back() = '\x80';
    store.put(key, bitmap);
    store.require({"block 16383: in use in the saved bitmap"});
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

TEST_CASE("counters and tables") {
  Damaged store;
  SECTION("inode numbers would be given out again") {
    store.put(keys::counter("inode"), counted(5));
    store.require({"counter \"inode\" is at 5, but "});
  }
  SECTION("node ids would be given out again") {
    store.erase(keys::counter("node"));
    store.require({"counter \"node\" is at 0, but "});
  }
  SECTION("a malformed counter") {
    store.put(keys::counter("node"), "x");
    store.require({"counter \"node\" is malformed"});
  }
  SECTION("an unknown table") {
    store.put("Q1", "x");
    store.put("\x01", "x");
    store.put("\xff", "x");
    store.require({"unknown table 0x51", "unknown table 0x01", "unknown table 0xff"});
  }
  SECTION("many problems: all counted, some described") {
    for (int i = 0; i < 50; ++i) {
      store.put(keys::orphan(InodeNo(1000 + static_cast<std::uint64_t>(i))), std::string(1, '\0'));
    }
    CheckOptions options;
    options.max_problems = 7;
    const CheckReport report = store.check(options);
    REQUIRE(report.problem_count == 50);
    REQUIRE(report.problems.size() == 7);
  }
}

// The sample's state with some values unreadable.
class Unreadable final : public KvReader {
 public:
  Unreadable(const KvReader& base, std::vector<std::string> keys)
      : base_(base), keys_(std::move(keys)) {}
  Result<std::optional<std::string>> get(std::string_view key) const override {
    return bad(key) ? corrupt("unreadable value") : base_.get(key);
  }
  Result<std::vector<KeyValue>> scan(std::string_view from, std::string_view end,
                                     std::size_t limit) const override {
    auto found = base_.scan(from, end, limit);
    if (found && std::any_of(found->begin(), found->end(),
                             [&](const KeyValue& record) { return bad(record.key); })) {
      return corrupt("unreadable value");
    }
    return found;
  }

 private:
  bool bad(std::string_view key) const {
    return std::find(keys_.begin(), keys_.end(), key) != keys_.end();
  }
  const KvReader& base_;
  std::vector<std::string> keys_;
};

TEST_CASE("unreadable records are named, and the rest is checked") {
  Damaged store;
  const Sample& s = Sample::get();
  const std::uint64_t blocks = 16384;
  const auto problems = [&](std::vector<std::string> bad) {
    const Unreadable kv(store.meta(), std::move(bad));
    return must(check_state({kv, s.uuid, blocks}, {})).problems;
  };
  const auto hex = [](std::string_view bytes) {
    std::string out;
    for (const char c : bytes) {
      char two[3];
      std::snprintf(two, sizeof two, "%02x", static_cast<unsigned char>(c));
      out += two;
    }
    return out;
  };
  REQUIRE(problems({}).empty());
  SECTION("any one record") {
    for (const char table : std::string("CDIPRSXYZ")) {
      for (const KeyValue& record : store.table(table)) {
        const auto found = problems({record.key});
        INFO(record.key);
        const std::string damaged = table == keys::kCounter
                                        ? ": unreadable value"
                                        : "record " + std::string(1, table) + ":" +
                                              hex(std::string_view(record.key).substr(1)) +
                                              " is damaged: unreadable value";
        REQUIRE(std::any_of(found.begin(), found.end(), [&](const std::string& problem) {
          return problem.find(damaged) != std::string::npos;
        }));
        if (table == keys::kTokenExpiry) {
          REQUIRE(found.size() == 2);
          REQUIRE(found[1].find("has no expiry record") != std::string::npos);
        }
      }
    }
  }
  SECTION("neighbours") {
    const auto records = store.table(keys::kDirent);
    std::vector<std::string> bad;
    for (std::size_t i = 1; i < 5; ++i) {
      bad.push_back(records[i].key);
    }
    const auto found = problems(bad);
    REQUIRE(std::count_if(found.begin(), found.end(), [](const std::string& problem) {
              return problem.find("is damaged") != std::string::npos;
            }) == 4);
  }
}

class BadDevice final : public BlockDevice {
 public:
  BadDevice(BlockDevice& base, BlockNo bad) : base_(base), bad_(bad) {}
  std::uint64_t blocks() const override { return base_.blocks(); }
  Result<void> read(std::span<const BlockRead> runs) override {
    for (const BlockRead& read : runs) {
      if (read.run.first <= bad_ && bad_ < read.run.end()) {
        return fail(EIO, "medium error");
      }
    }
    return base_.read(runs);
  }
  Result<void> write(std::span<const BlockWrite>) override { return fail(EROFS); }
  Result<void> sync() override { return {}; }
  Result<void> add_segment(std::uint64_t) override { return fail(EROFS); }
  void discard(std::span<const BlockRun>) override {}
  std::uint64_t host_free_bytes() const override { return 0; }

 private:
  BlockDevice& base_;
  BlockNo bad_;
};

TEST_CASE("data") {
  Damaged store;
  const Sample& s = Sample::get();
  const BlockNo block = blocks_of(store.inode(s.small).tree.extents.at(0)).first + 1;
  CheckOptions options;
  options.data = true;
  SECTION("a block that was changed") {
    namespace fs = std::filesystem;
    fs::remove(store.path("data"));
    fs::copy(s.dir + "/data", store.path("data"), fs::copy_options::recursive);
    std::fstream segment(fs::directory_iterator(store.path("data"))->path(),
                         std::ios::in | std::ios::out | std::ios::binary);
    segment.seekp(static_cast<std::streamoff>(block.value() * kBlockBytes + 77));
    segment.put('!');
    segment.close();
    const CheckReport report = store.check(options);
    REQUIRE(report.problems ==
            std::vector<std::string>{"block " + std::to_string(block.value()) +
                                     ": the data does not match its checksum"});
    REQUIRE(report.verified_blocks == report.used_blocks - 1);
    REQUIRE(must(check_store(store.path(""), {})).clean());  // nobody looked
  }
  SECTION("a block that cannot be read") {
    SegmentDeviceOptions device_options;
    device_options.read_only = true;
    const auto base = must(open_segment_device(s.dir + "/data", device_options));
    BadDevice device(*base, block);
    const CheckReport report =
        must(check_state({store.meta(), s.uuid, device.blocks(), &device}, options));
    REQUIRE(report.problem_count == 1);
    REQUIRE(report.problems[0].find("block " + std::to_string(block.value()) +
                                    " cannot be read: medium error") == 0);
    REQUIRE(report.verified_blocks == report.used_blocks - 1);
  }
}

TEST_CASE("what cannot be checked") {
  NameWorld world;
  REQUIRE(test::err(check_store(world.store_dir(), {})) == EBUSY);
  world.close();
  REQUIRE(test::err(check_store(world.store_dir(), {})) == 0);
  REQUIRE(test::err(check_store(world.store_dir() + "/nowhere", {})) == ENOENT);
}

TEST_CASE("a check changes nothing") {
  NameWorld world;
  world.file(kRootInode, "f");
  world.crash();
  const auto contents = [&] {
    std::map<std::string, std::string> files;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(world.store_dir())) {
      if (entry.is_regular_file() && entry.path().filename() != "lock.mdb") {
        std::ifstream in(entry.path(), std::ios::binary);
        files[entry.path()] = {std::istreambuf_iterator<char>(in), {}};
      }
    }
    return files;
  };
  const auto before = contents();
  world.require_clean();
  REQUIRE(contents() == before);
}

}  // namespace
}  // namespace odx
