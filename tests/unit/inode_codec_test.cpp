// The inode record: everything survives a round trip, and nothing malformed gets through.
#include <rapidcheck.h>
#include <catch2/catch.hpp>

#include "store/inode/inode.hpp"
#include "store/inode/names.hpp"

namespace odx {
namespace {

Inode of_type(std::uint32_t type) {
  Inode inode;
  inode.ino = InodeNo(7);
  inode.mode = type | 0640;
  inode.nlink = 1;
  if (S_ISDIR(type)) {
    inode.parent = kRootInode;
    inode.nlink = 2;
  }
  if (S_ISLNK(type)) {
    inode.symlink_target = "../there";
  }
  return inode;
}

void require_equal(const Inode& a, const Inode& b) {
  REQUIRE(a.ino == b.ino);
  REQUIRE(a.mode == b.mode);
  REQUIRE(a.uid == b.uid);
  REQUIRE(a.gid == b.gid);
  REQUIRE(a.nlink == b.nlink);
  REQUIRE(a.rdev == b.rdev);
  REQUIRE(a.atime_ns == b.atime_ns);
  REQUIRE(a.mtime_ns == b.mtime_ns);
  REQUIRE(a.ctime_ns == b.ctime_ns);
  REQUIRE(a.btime_ns == b.btime_ns);
  REQUIRE(a.parent == b.parent);
  REQUIRE(a.entry_count == b.entry_count);
  REQUIRE(a.data_version == b.data_version);
  REQUIRE(a.xattr_count == b.xattr_count);
  REQUIRE(a.symlink_target == b.symlink_target);
  REQUIRE(a.tree == b.tree);
}

void require_corrupt(const Inode& inode) {
  const auto decoded = Inode::decode(inode.ino, inode.encode());
  REQUIRE_FALSE(decoded);
  REQUIRE(decoded.error().is_corruption());
}

constexpr std::uint32_t kTypes[] = {S_IFREG, S_IFDIR, S_IFLNK, S_IFCHR, S_IFBLK, S_IFIFO, S_IFSOCK};

TEST_CASE("any inode survives a round trip") {
  const bool held = rc::check([] {
    Inode inode = of_type(
        *rc::gen::elementOf(std::vector<std::uint32_t>(std::begin(kTypes), std::end(kTypes))));
    inode.ino = InodeNo(*rc::gen::arbitrary<std::uint64_t>());
    inode.mode = (inode.mode & S_IFMT) | *rc::gen::inRange<std::uint32_t>(0, 010000);
    inode.uid = *rc::gen::arbitrary<std::uint32_t>();
    inode.gid = *rc::gen::arbitrary<std::uint32_t>();
    inode.nlink = *rc::gen::inRange<std::uint32_t>(0, kMaxLinks);
    inode.rdev = *rc::gen::arbitrary<std::uint32_t>();
    inode.atime_ns = *rc::gen::arbitrary<std::int64_t>();
    inode.mtime_ns = *rc::gen::arbitrary<std::int64_t>();
    inode.ctime_ns = *rc::gen::arbitrary<std::int64_t>();
    inode.btime_ns = *rc::gen::arbitrary<std::int64_t>();
    inode.xattr_count = *rc::gen::arbitrary<std::uint64_t>();
    if (inode.is_directory()) {
      inode.parent = InodeNo(*rc::gen::inRange<std::uint64_t>(1, UINT64_MAX));
      inode.entry_count = *rc::gen::arbitrary<std::uint64_t>();
    }
    if (inode.is_symlink()) {
      inode.symlink_target = std::string(*rc::gen::inRange<std::size_t>(1, 4096), 'x');
    }
    if (inode.is_regular()) {
      inode.data_version = *rc::gen::arbitrary<std::uint64_t>();
      const auto count = *rc::gen::inRange<std::size_t>(0, kInlineExtents + 1);
      for (std::size_t i = 0; i < count; ++i) {
        const auto bytes = *rc::gen::inRange<std::uint64_t>(1, 1ULL << 40);
        const auto at = *rc::gen::inRange<std::uint64_t>(0, 1ULL << 50);
        inode.tree.extents.push_back(i % 3 == 1 ? TreeEntry::hole(bytes)
                                                : TreeEntry::data(PhysAddr(at), bytes));
      }
    }
    const auto decoded = Inode::decode(inode.ino, inode.encode());
    RC_ASSERT(decoded.has_value());
    require_equal(*decoded, inode);
  });
  REQUIRE(held);
}

TEST_CASE("a root node survives a round trip") {
  Inode inode = of_type(S_IFREG);
  inode.tree.root = Tree::Root{NodeId(99), 3, 1ULL << 40, 12345};
  const auto decoded = Inode::decode(inode.ino, inode.encode());
  REQUIRE(decoded);
  require_equal(*decoded, inode);
}

TEST_CASE("the size is what stat says") {
  Inode file = of_type(S_IFREG);
  REQUIRE(file.size() == 0);
  file.tree.extents = {TreeEntry::hole(5000), TreeEntry::data(PhysAddr(4096), 10)};
  REQUIRE(file.size() == 5010);
  REQUIRE(of_type(S_IFLNK).size() == 8);
  REQUIRE(of_type(S_IFCHR).size() == 0);
}

TEST_CASE("a record cut short or with bytes left over is corrupt") {
  for (const std::uint32_t type : kTypes) {
    const std::string whole = of_type(type).encode();
    REQUIRE(Inode::decode(InodeNo(7), whole));
    for (std::size_t size = 0; size < whole.size(); ++size) {
      const auto decoded = Inode::decode(InodeNo(7), std::string_view(whole).substr(0, size));
      REQUIRE_FALSE(decoded);
      REQUIRE(decoded.error().is_corruption());
    }
    const auto decoded = Inode::decode(InodeNo(7), whole + '\0');
    REQUIRE_FALSE(decoded);
    REQUIRE(decoded.error().is_corruption());
  }
}

TEST_CASE("a record that contradicts itself is corrupt") {
  SECTION("unknown type") {
    Inode inode = of_type(S_IFREG);
    inode.mode = 0030000 | 0644;
    require_corrupt(inode);
    inode.mode = 0644;
    require_corrupt(inode);
  }
  SECTION("unknown mode bits") {
    Inode inode = of_type(S_IFREG);
    inode.mode |= 1U << 20;
    require_corrupt(inode);
  }
  SECTION("links") {
    Inode inode = of_type(S_IFREG);
    inode.nlink = kMaxLinks + 1;
    require_corrupt(inode);
  }
  SECTION("symlink target") {
    Inode inode = of_type(S_IFLNK);
    inode.symlink_target.clear();
    require_corrupt(inode);
    inode.symlink_target = std::string(4096, 'x');
    require_corrupt(inode);
    inode = of_type(S_IFREG);
    inode.symlink_target = "x";
    require_corrupt(inode);
  }
  SECTION("parent") {
    Inode inode = of_type(S_IFDIR);
    inode.parent = InodeNo{};
    require_corrupt(inode);
    inode = of_type(S_IFREG);
    inode.parent = kRootInode;
    require_corrupt(inode);
  }
  SECTION("entries of a file") {
    Inode inode = of_type(S_IFREG);
    inode.entry_count = 1;
    require_corrupt(inode);
  }
  SECTION("content of a directory") {
    Inode inode = of_type(S_IFDIR);
    inode.tree.extents = {TreeEntry::hole(1)};
    require_corrupt(inode);
    inode = of_type(S_IFDIR);
    inode.data_version = 1;
    require_corrupt(inode);
  }
}

TEST_CASE("no bytes crash the decoder") {
  const bool held = rc::check([] {
    std::string bytes = of_type(S_IFREG).encode();
    const auto flips = *rc::gen::inRange<int>(1, 6);
    for (int i = 0; i < flips; ++i) {
      const auto at = *rc::gen::inRange<std::size_t>(0, bytes.size());
      bytes[at] = static_cast<char>(*rc::gen::arbitrary<std::uint8_t>());
    }
    const auto decoded = Inode::decode(InodeNo(7), bytes);
    if (decoded) {
      RC_ASSERT(decoded->encode() == bytes);  // what is accepted means one thing
    }
  });
  REQUIRE(held);
}

}  // namespace
}  // namespace odx
