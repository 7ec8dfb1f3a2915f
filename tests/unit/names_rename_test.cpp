// Rename and exchange: every rule and errno by itself.
#include "name_world.hpp"

namespace odx {
namespace {

using test::err;
using test::listed;
using test::must;
using test::NameWorld;

constexpr InodeNo kRoot = kRootInode;
constexpr InodeNo kNowhere{987654};
using Strings = std::vector<std::string>;

TEST_CASE("rename") {
  NameWorld world;
  Names& names = world.names();
  const InodeNo file = world.file(kRoot, "f");
  const InodeNo dir = world.mkdir(kRoot, "d");
  const InodeNo inner = world.mkdir(dir, "inner");
  constexpr auto kReplace = RenameMode::kReplace;
  world.clock.advance_ns(7);

  SECTION("a file within its directory") {
    REQUIRE(must(names.rename(kRoot, "f", kRoot, "g", kReplace)) == nullptr);
    REQUIRE(listed(names, kRoot) == Strings{"d", "g"});
    REQUIRE(must(names.lookup(kRoot, "g"))->ctime_ns == world.clock.now_ns());
    REQUIRE(world.get(file)->mtime_ns < world.clock.now_ns());
    REQUIRE(world.get(kRoot)->entry_count == 2);
    REQUIRE(world.get(kRoot)->mtime_ns == world.clock.now_ns());
  }
  SECTION("a file to another directory") {
    must(names.rename(kRoot, "f", dir, "g", kReplace));
    REQUIRE(listed(names, kRoot) == Strings{"d"});
    REQUIRE(listed(names, dir) == Strings{"g", "inner"});
    REQUIRE(world.get(kRoot)->mtime_ns == world.clock.now_ns());
    REQUIRE(world.get(dir)->mtime_ns == world.clock.now_ns());
  }
  SECTION("a directory to another directory") {
    must(names.rename(dir, "inner", kRoot, "outer", kReplace));
    REQUIRE(must(names.lookup(inner, ".."))->ino == kRoot);
    REQUIRE(world.get(dir)->nlink == 2);
    REQUIRE(world.get(kRoot)->nlink == 4);
  }
  SECTION("with a whiteout") {
    NewInode whiteout;
    whiteout.mode = S_IFCHR;
    whiteout.uid = 7;
    REQUIRE(must(names.rename(kRoot, "f", dir, "g", kReplace, &whiteout)) == nullptr);
    REQUIRE(listed(names, kRoot) == Strings{"d", "f"});
    REQUIRE(must(names.lookup(dir, "g"))->ino == file);
    const InodePtr left = must(names.lookup(kRoot, "f"));
    REQUIRE(left->mode == S_IFCHR);
    REQUIRE(left->rdev == 0);
    REQUIRE(left->uid == 7);
    REQUIRE(left->nlink == 1);
    REQUIRE(world.get(kRoot)->entry_count == 2);
    // A directory leaves a name that is none, and comes back over it.
    must(names.rename(dir, "inner", kRoot, "outer", kReplace, &whiteout));
    REQUIRE(world.get(dir)->nlink == 2);
    REQUIRE(world.get(kRoot)->nlink == 4);
    REQUIRE(err(names.rename(kRoot, "outer", dir, "inner", kReplace)) == ENOTDIR);
    // Nothing is left behind where nothing is moved.
    REQUIRE(err(names.rename(dir, "g", kRoot, "f", RenameMode::kNoReplace, &whiteout)) == EEXIST);
    REQUIRE(err(names.rename(dir, "g", kRoot, "f", RenameMode::kExchange, &whiteout)) == EINVAL);
    whiteout.mode = S_IFDIR;
    REQUIRE(err(names.rename(dir, "g", kRoot, "h", kReplace, &whiteout)) == EINVAL);
    REQUIRE(listed(names, dir) == Strings{"g", "inner"});
  }
  SECTION("over a file") {
    const InodeNo target = world.file(dir, "g");
    const InodePtr replaced = must(names.rename(kRoot, "f", dir, "g", kReplace));
    REQUIRE(replaced->ino == target);
    REQUIRE(replaced->nlink == 0);
    REQUIRE(must(names.lookup(dir, "g"))->ino == file);
    REQUIRE(world.get(dir)->entry_count == 2);
    must(names.reap(target));
    REQUIRE(err(names.get(target)) == ENOENT);
  }
  SECTION("over a file in the same directory") {
    const InodeNo target = world.file(kRoot, "g");
    must(names.link(target, dir, "kept"));
    const InodePtr replaced = must(names.rename(kRoot, "f", kRoot, "g", kReplace));
    REQUIRE(replaced->ino == target);
    REQUIRE(replaced->nlink == 1);
    REQUIRE(listed(names, kRoot) == Strings{"d", "g"});
  }
  SECTION("over an empty directory") {
    const InodeNo target = world.mkdir(kRoot, "t");
    const InodePtr replaced = must(names.rename(kRoot, "d", kRoot, "t", kReplace));
    REQUIRE(replaced->ino == target);
    REQUIRE(replaced->nlink == 0);
    REQUIRE(world.get(kRoot)->nlink == 3);
    REQUIRE(must(names.lookup(kRoot, "t"))->ino == dir);
  }
  SECTION("over an empty directory elsewhere") {
    const InodeNo target = world.mkdir(kRoot, "t");
    const InodePtr replaced = must(names.rename(dir, "inner", kRoot, "t", kReplace));
    REQUIRE(replaced->ino == target);
    REQUIRE(world.get(kRoot)->nlink == 4);
    REQUIRE(world.get(dir)->nlink == 2);
    REQUIRE(world.get(inner)->parent == kRoot);
  }
  SECTION("two names of one inode: nothing happens") {
    must(names.link(file, dir, "g"));
    for (const RenameMode mode : {kReplace, RenameMode::kExchange}) {
      REQUIRE(must(names.rename(kRoot, "f", dir, "g", mode)) == nullptr);
      REQUIRE(must(names.rename(kRoot, "f", kRoot, "f", mode)) == nullptr);
      REQUIRE(must(names.rename(kRoot, "d", kRoot, "d", mode)) == nullptr);
    }
    REQUIRE(world.get(file)->nlink == 2);
    REQUIRE(listed(names, kRoot) == Strings{"d", "f"});
  }
  SECTION("errors") {
    REQUIRE(err(names.rename(kRoot, "x", kRoot, "y", kReplace)) == ENOENT);
    REQUIRE(err(names.rename(file, "x", kRoot, "y", kReplace)) == ENOTDIR);
    REQUIRE(err(names.rename(kRoot, "f", file, "y", kReplace)) == ENOTDIR);
    REQUIRE(err(names.rename(kNowhere, "x", kRoot, "y", kReplace)) == ENOENT);
    REQUIRE(err(names.rename(kRoot, "f", kNowhere, "y", kReplace)) == ENOENT);
    REQUIRE(err(names.rename(kRoot, "f", kRoot, "d", kReplace)) == EISDIR);
    REQUIRE(err(names.rename(kRoot, "d", kRoot, "f", kReplace)) == ENOTDIR);
    const InodeNo full = world.mkdir(kRoot, "full");
    world.file(full, "x");
    REQUIRE(err(names.rename(kRoot, "d", kRoot, "full", kReplace)) == ENOTEMPTY);
    REQUIRE(err(names.rename(dir, "inner", kRoot, "d", kReplace)) == ENOTEMPTY);
    for (const char* dots : {".", ".."}) {
      REQUIRE(err(names.rename(kRoot, dots, kRoot, "y", kReplace)) == EBUSY);
      REQUIRE(err(names.rename(kRoot, "f", kRoot, dots, kReplace)) == EBUSY);
    }
  }
  SECTION("a directory never moves into itself") {
    const InodeNo deep = world.mkdir(inner, "deep");
    for (const RenameMode mode : {kReplace, RenameMode::kNoReplace}) {
      REQUIRE(err(names.rename(kRoot, "d", dir, "x", mode)) == EINVAL);
      REQUIRE(err(names.rename(kRoot, "d", inner, "x", mode)) == EINVAL);
      REQUIRE(err(names.rename(kRoot, "d", deep, "x", mode)) == EINVAL);
    }
    REQUIRE(err(names.rename(kRoot, "d", inner, "deep", kReplace)) == EINVAL);
    must(names.rename(inner, "deep", kRoot, "deep", kReplace));
    must(names.rename(kRoot, "d", deep, "d", kReplace));  // no longer below it
    REQUIRE(must(names.lookup(dir, ".."))->ino == deep);
    REQUIRE(err(names.rename(kRoot, "deep", inner, "x", kReplace)) == EINVAL);
  }
  SECTION("NOREPLACE") {
    REQUIRE(err(names.rename(kRoot, "f", kRoot, "d", RenameMode::kNoReplace)) == EEXIST);
    REQUIRE(err(names.rename(kRoot, "f", kRoot, "f", RenameMode::kNoReplace)) == EEXIST);
    must(names.rename(kRoot, "f", dir, "f", RenameMode::kNoReplace));
    REQUIRE(must(names.lookup(dir, "f"))->ino == file);
  }
  world.close();
  world.require_clean();
}

TEST_CASE("exchange") {
  NameWorld world;
  Names& names = world.names();
  const InodeNo a = world.mkdir(kRoot, "a");
  const InodeNo b = world.mkdir(kRoot, "b");
  const InodeNo file = world.file(a, "file");
  const InodeNo dir = world.mkdir(b, "dir");
  const InodeNo below = world.mkdir(dir, "below");
  constexpr auto kExchange = RenameMode::kExchange;
  world.clock.advance_ns(7);

  SECTION("a file and a directory across directories") {
    REQUIRE(must(names.rename(a, "file", b, "dir", kExchange)) == nullptr);
    REQUIRE(must(names.lookup(a, "file"))->ino == dir);
    REQUIRE(must(names.lookup(b, "dir"))->ino == file);
    REQUIRE(world.get(a)->nlink == 3);
    REQUIRE(world.get(b)->nlink == 2);
    REQUIRE(world.get(dir)->parent == a);
    for (const InodeNo ino : {a, b, file, dir}) {
      REQUIRE(world.get(ino)->ctime_ns == world.clock.now_ns());
    }
    REQUIRE(must(names.list(a, 0, 10))[0].mode == S_IFDIR);
    REQUIRE(must(names.list(b, 0, 10))[0].mode == S_IFREG);
    must(names.rename(a, "file", b, "dir", kExchange));
    REQUIRE(world.get(a)->nlink == 2);
    REQUIRE(world.get(b)->nlink == 3);
  }
  SECTION("two directories across directories") {
    const InodeNo other = world.mkdir(a, "other");
    must(names.rename(a, "other", b, "dir", kExchange));
    REQUIRE(world.get(other)->parent == b);
    REQUIRE(world.get(dir)->parent == a);
    REQUIRE(world.get(a)->nlink == 3);
    REQUIRE(world.get(b)->nlink == 3);
  }
  SECTION("within one directory") {
    world.file(kRoot, "f");
    must(names.rename(kRoot, "f", kRoot, "a", kExchange));
    REQUIRE(must(names.lookup(kRoot, "f"))->ino == a);
    REQUIRE(world.get(kRoot)->nlink == 4);
    REQUIRE(world.get(kRoot)->entry_count == 3);
  }
  SECTION("full directories are no obstacle") {
    must(names.rename(kRoot, "a", kRoot, "b", kExchange));
    REQUIRE(must(names.lookup(kRoot, "a"))->ino == b);
  }
  SECTION("errors") {
    REQUIRE(err(names.rename(a, "file", b, "missing", kExchange)) == ENOENT);
    REQUIRE(err(names.rename(a, "missing", b, "dir", kExchange)) == ENOENT);
    // Either of the two would come to lie in itself.
    REQUIRE(err(names.rename(kRoot, "b", dir, "below", kExchange)) == EINVAL);
    REQUIRE(err(names.rename(dir, "below", kRoot, "b", kExchange)) == EINVAL);
    REQUIRE(err(names.rename(kRoot, "b", b, "dir", kExchange)) == EINVAL);
    REQUIRE(err(names.rename(b, "dir", kRoot, "b", kExchange)) == EINVAL);
    REQUIRE(world.get(below)->parent == dir);
  }
  world.close();
  world.require_clean();
}

}  // namespace
}  // namespace odx
