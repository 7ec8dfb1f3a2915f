// check: a store with everything in it is clean, damaged names are named, and what cannot be read
// does not keep the rest from being checked.
#include "store/check/check.hpp"

#include <cstdio>
#include <fstream>
#include <map>

#include "check_sample.hpp"
#include "store/device/segment_device.hpp"

namespace odx {
namespace {

using test::counted;
using test::Damaged;
using test::must;
using test::NameWorld;
using test::Sample;
using test::text;

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
                   "entry \"empty\" leads to inode " + text(s.empty) + ", which cannot be read"});
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
                   "link count is 2, but it has 1 names", "counter \"inode\" is at"});
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
    store.require({"orphan record of inode 1000, which does not exist", "counter \"inode\" is at"});
  }
  SECTION("a malformed record") {
    store.put(keys::orphan(s.orphan), "xyz");
    store.require({"malformed orphan record", "has no links, but is not recorded as an orphan"});
  }
  SECTION("an attribute of nothing") {
    store.put(keys::xattr(InodeNo(1000), "user.x"), "v");
    store.require({"extended attribute \"user.x\" of inode 1000, which does not exist",
                   "counter \"inode\" is at"});
  }
  SECTION("an attribute that is too large") {
    store.put(keys::xattr(s.small, "user.one"), std::string(70000, 'x'));
    store.require({"extended attribute \"user.one\" is too large"});
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
    REQUIRE(report.problem_count == 51);  // and the counter that gave their numbers
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
          REQUIRE(found.size() == 1);  // its key says it all
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

// Gives the store data of its own, with one byte changed.
void change_byte(Damaged& store, BlockNo block) {
  namespace fs = std::filesystem;
  fs::remove(store.path("data"));
  fs::copy(Sample::get().dir + "/data", store.path("data"), fs::copy_options::recursive);
  std::fstream segment(fs::directory_iterator(store.path("data"))->path(),
                       std::ios::in | std::ios::out | std::ios::binary);
  segment.seekp(static_cast<std::streamoff>(block.value() * kBlockBytes + 77));
  segment.put('!');
}

TEST_CASE("data") {
  Damaged store;
  const Sample& s = Sample::get();
  const BlockNo block = blocks_of(store.inode(s.small).tree.extents.at(0)).first + 1;
  const std::string block_text = "block " + std::to_string(block.value());
  const std::string owner = "inode " + text(s.small) + ", \"/a/small\", has damaged data";
  CheckOptions options;
  options.data = true;
  SECTION("a block that was changed") {
    change_byte(store, block);
    const CheckReport report = store.check(options);
    REQUIRE(report.problems ==
            std::vector<std::string>{block_text + ": the data does not match its checksum", owner});
    REQUIRE(report.verified_blocks == report.used_blocks - 1);
    REQUIRE(must(check_store(store.path(""), {})).clean());  // nobody looked
  }
  SECTION("a block that files and a token share") {
    const NodeId root = store.inode(s.part).tree.root->id;
    const TreeNode inner = must(TreeNode::decode(store.value(keys::node(root))));
    const TreeNode leaf =
        must(TreeNode::decode(store.value(keys::node(inner.entries.at(1).child()))));
    const auto extent = std::find_if(leaf.entries.begin(), leaf.entries.end(),
                                     [](const TreeEntry& entry) { return !entry.is_hole(); });
    change_byte(store, blocks_of(*extent).first);
    const CheckReport report = store.check(options);
    const auto says = [&](const std::string& problem) {
      return std::find(report.problems.begin(), report.problems.end(), problem) !=
             report.problems.end();
    };
    REQUIRE(report.problem_count == 5);
    REQUIRE(says("inode " + text(s.big) + ", \"/big\", has damaged data"));
    REQUIRE(says("inode " + text(s.clone) + ", \"/clone\", has damaged data"));
    REQUIRE(says("inode " + text(s.part) + ", \"/part\", has damaged data"));
    REQUIRE(report.problems.back().find("token ") == 0);
  }
  SECTION("a file without a name") {
    change_byte(store, blocks_of(must(TreeNode::decode(store.value(
                                          keys::node(store.inode(s.orphan).tree.root->id))))
                                     .entries.at(0))
                           .first);
    REQUIRE(store.check(options).problems.at(1) ==
            "inode " + text(s.orphan) + ", which has no name, has damaged data");
  }
  SECTION("a file below a damaged directory") {
    store.put(keys::inode(s.dir_a), "junk");
    change_byte(store, block);
    REQUIRE(store.check(options).problems.back() ==
            "inode " + text(s.small) + ", \".../small\", has damaged data");
  }
  SECTION("a block that cannot be read") {
    SegmentDeviceOptions device_options;
    device_options.read_only = true;
    const auto base = must(open_segment_device(s.dir + "/data", device_options));
    BadDevice device(*base, block);
    const CheckReport report =
        must(check_state({store.meta(), s.uuid, device.blocks(), &device}, options));
    REQUIRE(report.problem_count == 2);
    REQUIRE(report.problems[0].find(block_text + " cannot be read: medium error") == 0);
    REQUIRE(report.problems[1] == owner);
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
