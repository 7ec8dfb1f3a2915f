// Names: every rule and errno by itself.
#include "store/inode/names.hpp"

#include <algorithm>
#include <set>

#include "name_world.hpp"
#include "store/inode/directory.hpp"
#include "store/meta/keys.hpp"
#include "store/mutation.hpp"

namespace odx {
namespace {

using test::err;
using test::must;
using test::NameWorld;

constexpr InodeNo kRoot = kRootInode;
constexpr InodeNo kNowhere{987654};

std::vector<std::string> listed(Names& names, InodeNo dir, std::size_t at_once = 1000) {
  std::vector<std::string> found;
  std::uint64_t cookie = 0;
  for (;;) {
    const auto entries = must(names.list(dir, cookie, at_once));
    for (const DirectoryEntry& entry : entries) {
      REQUIRE(entry.cookie > cookie);
      REQUIRE(entry.cookie >= 16);
      REQUIRE(entry.cookie <= INT64_MAX);
      cookie = entry.cookie;
      found.push_back(entry.name);
    }
    if (entries.size() < at_once) {
      std::sort(found.begin(), found.end());
      return found;
    }
  }
}

using Strings = std::vector<std::string>;

TEST_CASE("a fresh store has an empty root") {
  NameWorld world;
  const InodePtr root = world.get(kRoot);
  REQUIRE(root->is_directory());
  REQUIRE(root->nlink == 2);
  REQUIRE(root->entry_count == 0);
  REQUIRE(listed(world.names(), kRoot).empty());
  REQUIRE(must(world.names().lookup(kRoot, "."))->ino == kRoot);
  REQUIRE(must(world.names().lookup(kRoot, ".."))->ino == kRoot);
  world.close();
  world.require_clean();
}

TEST_CASE("create") {
  NameWorld world;
  Names& names = world.names();

  SECTION("a file: attributes, look-up, counts, times") {
    world.clock.advance_ns(5);
    NewInode what = NameWorld::regular(04751);
    what.uid = 10;
    what.gid = 20;
    what.rdev = 30;
    const InodePtr made = must(names.create(kRoot, "f", what));
    REQUIRE(made->mode == (S_IFREG | 04751));
    REQUIRE(made->uid == 10);
    REQUIRE(made->gid == 20);
    REQUIRE(made->rdev == 0);
    REQUIRE(made->nlink == 1);
    const std::int64_t now = world.clock.now_ns();
    for (const std::int64_t time : {made->atime_ns, made->mtime_ns, made->ctime_ns, made->btime_ns}) {
      REQUIRE(time == now);
    }
    REQUIRE(must(names.lookup(kRoot, "f"))->ino == made->ino);
    const InodePtr root = world.get(kRoot);
    REQUIRE(root->entry_count == 1);
    REQUIRE(root->nlink == 2);
    REQUIRE(root->mtime_ns == now);
    REQUIRE(root->ctime_ns == now);
    REQUIRE(root->atime_ns != now);
  }
  SECTION("a directory") {
    const InodeNo dir = world.mkdir(kRoot, "d");
    const InodeNo inner = world.mkdir(dir, "e");
    REQUIRE(world.get(kRoot)->nlink == 3);
    REQUIRE(world.get(dir)->nlink == 3);
    REQUIRE(world.get(inner)->nlink == 2);
    REQUIRE(must(names.lookup(inner, ".."))->ino == dir);
    REQUIRE(must(names.lookup(dir, ".."))->ino == kRoot);
    REQUIRE(must(names.lookup(dir, "."))->ino == dir);
  }
  SECTION("every other type") {
    for (const std::uint32_t type : {S_IFCHR, S_IFBLK, S_IFIFO, S_IFSOCK}) {
      NewInode what;
      what.mode = type | 0600U;
      what.rdev = 0x1234;
      const InodePtr made = must(names.create(kRoot, std::to_string(type), what));
      REQUIRE((made->mode & S_IFMT) == type);
      REQUIRE(made->rdev == (type == S_IFCHR || type == S_IFBLK ? 0x1234 : 0));
    }
    const InodePtr link = must(names.create(kRoot, "l", NameWorld::symlink("a/b")));
    REQUIRE(link->symlink_target == "a/b");
    REQUIRE(link->size() == 3);
    for (const DirectoryEntry& entry : must(names.list(kRoot, 0, 10))) {
      REQUIRE(entry.mode == (world.get(entry.ino)->mode & S_IFMT));
    }
  }
  SECTION("errors") {
    const InodeNo file = world.file(kRoot, "f");
    REQUIRE(err(names.create(kRoot, "f", NameWorld::regular())) == EEXIST);
    REQUIRE(err(names.create(kRoot, "f", NameWorld::directory())) == EEXIST);
    REQUIRE(err(names.create(kRoot, ".", NameWorld::directory())) == EEXIST);
    REQUIRE(err(names.create(kRoot, "..", NameWorld::directory())) == EEXIST);
    REQUIRE(err(names.create(file, "x", NameWorld::regular())) == ENOTDIR);
    REQUIRE(err(names.create(kNowhere, "x", NameWorld::regular())) == ENOENT);
    NewInode unknown;
    unknown.mode = 0030000 | 0644;
    REQUIRE(err(names.create(kRoot, "x", unknown)) == EINVAL);
    unknown.mode = 0644;
    REQUIRE(err(names.create(kRoot, "x", unknown)) == EINVAL);
    REQUIRE(err(names.create(kRoot, "x", NameWorld::symlink(""))) == ENOENT);
    REQUIRE(err(names.create(kRoot, "x", NameWorld::symlink(std::string(4096, 'x')))) ==
            ENAMETOOLONG);
    REQUIRE(err(names.create(kRoot, "x", NameWorld::symlink(std::string("a\0b", 3)))) == EINVAL);
    NewInode target_of_file = NameWorld::regular();
    target_of_file.symlink_target = "x";
    REQUIRE(err(names.create(kRoot, "x", target_of_file)) == EINVAL);
    REQUIRE(listed(names, kRoot) == Strings{"f"});
    REQUIRE(world.get(kRoot)->entry_count == 1);
    REQUIRE(must(names.create(kRoot, "l", NameWorld::symlink(std::string(4095, 'x')))));
  }
  SECTION("a set-group-id directory passes on its group") {
    NewInode shared = NameWorld::directory(02775);
    shared.gid = 77;
    const InodeNo dir = must(names.create(kRoot, "shared", shared))->ino;
    NewInode what = NameWorld::regular(0644);
    what.gid = 5;
    REQUIRE(must(names.create(dir, "f", what))->gid == 77);
    REQUIRE(must(names.create(dir, "g", what))->mode == (S_IFREG | 0644));
    NewInode sub = NameWorld::directory(0755);
    sub.gid = 5;
    const InodePtr made = must(names.create(dir, "d", sub));
    REQUIRE(made->gid == 77);
    REQUIRE(made->mode == (S_IFDIR | 02755));
  }
  world.close();
  world.require_clean();
}

TEST_CASE("names that cannot be") {
  NameWorld world;
  Names& names = world.names();
  const InodeNo file = world.file(kRoot, "f");
  const std::string longest(255, 'n');
  const std::pair<std::string, int> bad[] = {
      {"", EINVAL}, {"a/b", EINVAL}, {std::string("a\0b", 3), EINVAL}, {longest + "n", ENAMETOOLONG}};
  for (const auto& [name, errno_value] : bad) {
    REQUIRE(err(names.lookup(kRoot, name)) == errno_value);
    REQUIRE(err(names.create(kRoot, name, NameWorld::regular())) == errno_value);
    REQUIRE(err(names.link(file, kRoot, name)) == errno_value);
    REQUIRE(err(names.unlink(kRoot, name)) == errno_value);
    REQUIRE(err(names.rmdir(kRoot, name)) == errno_value);
    REQUIRE(err(names.rename(kRoot, name, kRoot, "x", RenameMode::kReplace)) == errno_value);
    REQUIRE(err(names.rename(kRoot, "f", kRoot, name, RenameMode::kReplace)) == errno_value);
  }
  const InodeNo made = world.file(kRoot, longest);
  REQUIRE(must(names.lookup(kRoot, longest))->ino == made);
  for (const std::string name : {"\x01", "\xff\xfe", "...", " ", "a\nb", "-"}) {
    REQUIRE(err(names.lookup(kRoot, name)) == ENOENT);
    world.file(kRoot, name);
    REQUIRE(names.lookup(kRoot, name));
  }
  world.close();
  world.require_clean();
}

TEST_CASE("lookup") {
  NameWorld world;
  Names& names = world.names();
  const InodeNo file = world.file(kRoot, "f");
  REQUIRE(err(names.lookup(kRoot, "g")) == ENOENT);
  REQUIRE(err(names.lookup(file, "x")) == ENOTDIR);
  REQUIRE(err(names.lookup(file, "..")) == ENOTDIR);
  REQUIRE(err(names.lookup(kNowhere, "x")) == ENOENT);
  REQUIRE(err(names.get(kNowhere)) == ENOENT);
}

TEST_CASE("list") {
  NameWorld world;
  Names& names = world.names();
  const InodeNo dir = world.mkdir(kRoot, "d");
  Strings expected;
  for (int i = 0; i < 500; ++i) {
    expected.push_back("file" + std::to_string(i));
    world.file(dir, expected.back());
  }
  std::sort(expected.begin(), expected.end());
  for (const std::size_t at_once : {1U, 7U, 499U, 500U, 501U, 10000U}) {
    REQUIRE(listed(names, dir, at_once) == expected);
  }
  SECTION("an entry that exists throughout is listed once whatever comes and goes") {
    std::multiset<std::string> seen;
    std::uint64_t cookie = 0;
    for (int round = 0;; ++round) {
      const auto entries = must(names.list(dir, cookie, 10));
      if (entries.empty()) {
        break;
      }
      for (const DirectoryEntry& entry : entries) {
        seen.insert(entry.name);
        cookie = entry.cookie;
      }
      must(names.unlink(dir, "file" + std::to_string(round)));
      world.file(dir, "new" + std::to_string(round));
      must(names.rename(dir, "file" + std::to_string(499 - round), dir,
                        "moved" + std::to_string(round), RenameMode::kReplace));
    }
    for (int i = 100; i < 400; ++i) {
      REQUIRE(seen.count("file" + std::to_string(i)) == 1);
    }
  }
  SECTION("the end") {
    REQUIRE(must(names.list(dir, INT64_MAX, 10)).empty());
    REQUIRE(must(names.list(dir, UINT64_MAX, 10)).empty());
    REQUIRE(must(names.list(dir, 0, 0)).empty());
    REQUIRE(err(names.list(kNowhere, 0, 10)) == ENOENT);
    REQUIRE(err(names.list(must(names.lookup(dir, "file0"))->ino, 0, 10)) == ENOTDIR);
  }
  world.close();
  world.require_clean();
}

// Files entries under another name's hash, as if the hash were a bad one.
void add_collision(Core& core, InodeNo dir, std::string_view name, std::uint64_t cookie,
                   InodeNo ino) {
  Mutation m = must(Mutation::begin(core));
  std::string value;
  put_le(value, ino.value());
  put_le(value, static_cast<std::uint32_t>(S_IFREG));
  value.append(name);
  m.kv().put(keys::dirent(dir, cookie), value);
  must(m.commit());
}

TEST_CASE("names that hash alike") {
  NameWorld world;
  Names& names = world.names();
  const InodeNo dir = world.mkdir(kRoot, "d");
  const InodeNo other = world.file(dir, "other");
  const std::uint64_t first = first_cookie(world.core().super.uuid, "wanted");

  SECTION("live side by side") {
    add_collision(world.core(), dir, "collides", first, other);
    const InodeNo wanted = world.file(dir, "wanted");
    REQUIRE(must(names.lookup(dir, "wanted"))->ino == wanted);
    const auto entries = must(names.list(dir, first - 1, 2));
    REQUIRE(entries[0].name == "collides");
    REQUIRE(entries[1].name == "wanted");
    REQUIRE(entries[1].cookie == first + 1);
    must(names.rename(dir, "wanted", dir, "elsewhere", RenameMode::kReplace));
    REQUIRE(err(names.lookup(dir, "wanted")) == ENOENT);
    must(names.rename(dir, "elsewhere", dir, "wanted", RenameMode::kReplace));
    must(names.unlink(dir, "wanted"));
    REQUIRE(err(names.lookup(dir, "wanted")) == ENOENT);
    REQUIRE(must(names.list(dir, first - 1, 1))[0].name == "collides");
  }
  SECTION("until there are too many") {
    for (std::uint64_t i = 0; i < kMaxEqualHashes; ++i) {
      add_collision(world.core(), dir, "collides" + std::to_string(i), first + i, other);
    }
    REQUIRE(err(names.create(dir, "wanted", NameWorld::regular())) == ENOSPC);
    REQUIRE(err(names.link(other, dir, "wanted")) == ENOSPC);
    REQUIRE(err(names.rename(dir, "other", dir, "wanted", RenameMode::kReplace)) == ENOSPC);
    REQUIRE(err(names.lookup(dir, "wanted")) == ENOENT);
    REQUIRE(must(names.lookup(dir, "other"))->ino == other);
  }
}

TEST_CASE("link") {
  NameWorld world;
  Names& names = world.names();
  const InodeNo file = world.file(kRoot, "f");
  const InodeNo dir = world.mkdir(kRoot, "d");
  SECTION("another name") {
    world.clock.advance_ns(9);
    const InodePtr linked = must(names.link(file, dir, "g"));
    REQUIRE(linked->ino == file);
    REQUIRE(linked->nlink == 2);
    REQUIRE(linked->ctime_ns == world.clock.now_ns());
    REQUIRE(linked->mtime_ns < world.clock.now_ns());
    REQUIRE(must(names.lookup(dir, "g"))->ino == file);
    REQUIRE(world.get(dir)->mtime_ns == world.clock.now_ns());
    REQUIRE(world.get(dir)->nlink == 2);
    REQUIRE(world.get(dir)->entry_count == 1);
  }
  SECTION("a symlink has hard links too") {
    const InodeNo link = must(names.create(kRoot, "s", NameWorld::symlink("f")))->ino;
    REQUIRE(must(names.link(link, dir, "s"))->nlink == 2);
  }
  SECTION("errors") {
    REQUIRE(err(names.link(file, kRoot, "f")) == EEXIST);
    REQUIRE(err(names.link(file, kRoot, ".")) == EEXIST);
    REQUIRE(err(names.link(file, file, "x")) == ENOTDIR);
    REQUIRE(err(names.link(file, kNowhere, "x")) == ENOENT);
    REQUIRE(err(names.link(kNowhere, dir, "x")) == ENOENT);
    REQUIRE(err(names.link(dir, kRoot, "x")) == EPERM);
    REQUIRE(err(names.link(dir, dir, "x")) == EPERM);
  }
  world.close();
  world.require_clean();
}

TEST_CASE("as many links as can be counted") {
  NameWorld world;
  Names& names = world.names();
  const InodeNo file = world.file(kRoot, "f");
  const InodeNo dir = world.mkdir(kRoot, "d");
  const InodeNo sub = world.mkdir(kRoot, "s");
  const auto set_links = [&](InodeNo ino, std::uint32_t nlink) {
    Mutation m = must(Mutation::begin(world.core()));
    Inode inode = must(m.inode(ino));
    inode.nlink = nlink;
    m.put(std::move(inode));
    must(m.commit());
  };
  set_links(file, kMaxLinks - 1);
  REQUIRE(must(names.link(file, dir, "g"))->nlink == kMaxLinks);
  REQUIRE(err(names.link(file, dir, "h")) == EMLINK);
  set_links(dir, kMaxLinks);
  REQUIRE(err(names.create(dir, "x", NameWorld::directory())) == EMLINK);
  REQUIRE(err(names.rename(kRoot, "s", dir, "s", RenameMode::kReplace)) == EMLINK);
  REQUIRE(err(names.rename(kRoot, "s", dir, "g", RenameMode::kExchange)) == EMLINK);
  REQUIRE(must(names.lookup(kRoot, "s"))->ino == sub);
  world.file(dir, "x");
}

TEST_CASE("unlink") {
  NameWorld world;
  Names& names = world.names();
  const InodeNo file = world.file(kRoot, "f");
  SECTION("one of two names") {
    must(names.link(file, kRoot, "g"));
    world.clock.advance_ns(3);
    const InodePtr left = must(names.unlink(kRoot, "f"));
    REQUIRE(left->ino == file);
    REQUIRE(left->nlink == 1);
    REQUIRE(left->ctime_ns == world.clock.now_ns());
    REQUIRE(world.get(kRoot)->mtime_ns == world.clock.now_ns());
    REQUIRE(err(names.lookup(kRoot, "f")) == ENOENT);
    REQUIRE(must(names.lookup(kRoot, "g"))->ino == file);
    must(names.reap(file));  // has a name: nothing happens
    REQUIRE(world.get(file)->nlink == 1);
  }
  SECTION("the last name") {
    const std::byte data[5] = {};
    must(world.files().write(file, FileOffset(0), data));
    REQUIRE(must(names.unlink(kRoot, "f"))->nlink == 0);
    REQUIRE(world.get(kRoot)->entry_count == 0);
    REQUIRE(world.get(file)->size() == 5);
    must(world.files().write(file, FileOffset(5), data));
    REQUIRE(world.get(file)->size() == 10);
    REQUIRE(err(names.link(file, kRoot, "again")) == ENOENT);
    SECTION("then reaped") {
      must(names.reap(file));
      REQUIRE(err(names.get(file)) == ENOENT);
      must(names.reap(file));
    }
    SECTION("then closed and opened") {
      world.reopen();
      REQUIRE(err(world.names().get(file)) == ENOENT);
    }
    SECTION("then a crash") {
      world.crash();
      world.require_clean();  // an orphan is no damage
      world.open();
      REQUIRE(err(world.names().get(file)) == ENOENT);
    }
  }
  SECTION("errors") {
    world.mkdir(kRoot, "d");
    REQUIRE(err(names.unlink(kRoot, "d")) == EISDIR);
    REQUIRE(err(names.unlink(kRoot, ".")) == EISDIR);
    REQUIRE(err(names.unlink(kRoot, "..")) == EISDIR);
    REQUIRE(err(names.unlink(kRoot, "x")) == ENOENT);
    REQUIRE(err(names.unlink(file, "x")) == ENOTDIR);
    REQUIRE(err(names.unlink(kNowhere, "x")) == ENOENT);
  }
  world.close();
  world.require_clean(true);
}

TEST_CASE("rmdir") {
  NameWorld world;
  Names& names = world.names();
  const InodeNo dir = world.mkdir(kRoot, "d");
  SECTION("an empty one") {
    world.clock.advance_ns(3);
    const InodePtr removed = must(names.rmdir(kRoot, "d"));
    REQUIRE(removed->ino == dir);
    REQUIRE(removed->nlink == 0);
    REQUIRE(world.get(kRoot)->nlink == 2);
    REQUIRE(world.get(kRoot)->entry_count == 0);
    REQUIRE(world.get(kRoot)->ctime_ns == world.clock.now_ns());
    SECTION("takes no more entries") {
      const InodeNo file = world.file(kRoot, "f");
      REQUIRE(err(names.create(dir, "x", NameWorld::regular())) == ENOENT);
      REQUIRE(err(names.create(dir, "x", NameWorld::directory())) == ENOENT);
      REQUIRE(err(names.link(file, dir, "x")) == ENOENT);
      REQUIRE(err(names.rename(kRoot, "f", dir, "x", RenameMode::kReplace)) == ENOENT);
      REQUIRE(err(names.rename(kRoot, "f", dir, "x", RenameMode::kExchange)) == ENOENT);
      REQUIRE(err(names.lookup(dir, "x")) == ENOENT);
      REQUIRE(must(names.list(dir, 0, 10)).empty());
      REQUIRE(must(names.lookup(dir, "."))->ino == dir);
      REQUIRE(must(names.lookup(dir, ".."))->ino == kRoot);
    }
    must(names.reap(dir));
    REQUIRE(err(names.get(dir)) == ENOENT);
  }
  SECTION("errors") {
    const InodeNo file = world.file(dir, "f");
    REQUIRE(err(names.rmdir(kRoot, "d")) == ENOTEMPTY);
    REQUIRE(err(names.rmdir(dir, "f")) == ENOTDIR);
    REQUIRE(err(names.rmdir(kRoot, "x")) == ENOENT);
    REQUIRE(err(names.rmdir(kRoot, ".")) == EINVAL);
    REQUIRE(err(names.rmdir(kRoot, "..")) == ENOTEMPTY);
    REQUIRE(err(names.rmdir(file, "x")) == ENOTDIR);
    REQUIRE(err(names.rmdir(kNowhere, "x")) == ENOENT);
  }
  world.close();
  world.require_clean();
}

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

TEST_CASE("an unnamed file") {
  NameWorld world;
  Names& names = world.names();
  const InodePtr made = must(names.create_unnamed(NameWorld::regular(0600)));
  REQUIRE(made->nlink == 0);
  REQUIRE(err(names.create_unnamed(NameWorld::directory())) == EINVAL);
  REQUIRE(err(names.create_unnamed(NameWorld::symlink("x"))) == EINVAL);
  SECTION("gets a name") {
    REQUIRE(must(names.link(made->ino, kRoot, "f"))->nlink == 1);
    must(names.reap(made->ino));
    world.reopen();
    REQUIRE(must(world.names().lookup(kRoot, "f"))->ino == made->ino);
    SECTION("and loses it for good") {
      must(world.names().unlink(kRoot, "f"));
      REQUIRE(err(world.names().link(made->ino, kRoot, "f")) == ENOENT);
    }
  }
  SECTION("never gets one") {
    must(names.reap(made->ino));
    REQUIRE(err(names.get(made->ino)) == ENOENT);
  }
  SECTION("is gone after a crash") {
    world.crash();
    world.require_clean();
    world.open();
    REQUIRE(err(world.names().get(made->ino)) == ENOENT);
  }
  world.close();
  world.require_clean();
}

TEST_CASE("inode numbers are not used again") {
  NameWorld world;
  const InodeNo first = world.file(kRoot, "f");
  must(world.names().unlink(kRoot, "f"));
  must(world.names().reap(first));
  world.reopen();
  REQUIRE(world.file(kRoot, "f") > first);
}

TEST_CASE("many orphans at a mount") {
  NameWorld world;
  for (int i = 0; i < 600; ++i) {
    must(world.names().create_unnamed(NameWorld::regular()));
  }
  world.crash();
  REQUIRE(world.check().orphans == 600);
  world.open();
  world.close();
  REQUIRE(world.check().orphans == 0);
  REQUIRE(world.check().inodes == 1);
  world.require_clean();
}

TEST_CASE("change") {
  NameWorld world;
  Names& names = world.names();
  const InodeNo file = must(names.create(kRoot, "f", NameWorld::regular(06755)))->ino;
  const InodeNo dir = must(names.create(kRoot, "d", NameWorld::directory(06755)))->ino;
  const std::int64_t born = world.clock.now_ns();
  world.clock.advance_ns(100);
  const std::int64_t now = world.clock.now_ns();

  SECTION("mode: the type stays") {
    AttrChange what;
    what.mode = S_IFDIR | 0600;
    const InodePtr changed = must(names.change(file, what));
    REQUIRE(changed->mode == (S_IFREG | 0600));
    REQUIRE(changed->ctime_ns == now);
    REQUIRE(changed->mtime_ns == born);
    REQUIRE(world.get(file)->mode == changed->mode);
  }
  SECTION("owner") {
    AttrChange what;
    what.uid = 3;
    REQUIRE(must(names.change(file, what))->uid == 3);
    what = {};
    what.gid = 4;
    const InodePtr changed = must(names.change(file, what));
    REQUIRE(changed->uid == 3);
    REQUIRE(changed->gid == 4);
  }
  SECTION("times") {
    AttrChange what;
    what.atime_ns = -5;
    what.mtime_ns = 6;
    const InodePtr changed = must(names.change(file, what));
    REQUIRE(changed->atime_ns == -5);
    REQUIRE(changed->mtime_ns == 6);
    REQUIRE(changed->ctime_ns == now);
    REQUIRE(changed->btime_ns == born);
    what = {};
    what.ctime_ns = 17;
    REQUIRE(must(names.change(file, what))->ctime_ns == 17);
  }
  SECTION("setting what is set is a change") {
    AttrChange what;
    what.uid = 0;
    REQUIRE(must(names.change(file, what))->ctime_ns == now);
  }
  SECTION("set-id bits") {
    AttrChange what;
    what.drop_set_id = true;
    REQUIRE(must(names.change(file, what))->mode == (S_IFREG | 0755));
    REQUIRE(must(names.change(dir, what))->mode == (S_IFDIR | 06755));
    REQUIRE(world.get(dir)->ctime_ns == born);  // nothing to drop, nothing changed
    AttrChange no_group_execute;
    no_group_execute.mode = 02745;
    must(names.change(file, no_group_execute));
    REQUIRE(must(names.change(file, what))->mode == (S_IFREG | 02745));
  }
  SECTION("nothing") {
    const TxnSeq before = world.core().meta->committed();
    REQUIRE(must(names.change(file, {}))->ctime_ns == born);
    REQUIRE(world.core().meta->committed() == before);
  }
  REQUIRE(err(names.change(kNowhere, {})) == ENOENT);
  world.close();
  world.require_clean();
}

TEST_CASE("extended attributes") {
  NameWorld world;
  Names& names = world.names();
  const InodeNo file = world.file(kRoot, "f");
  const InodeNo other = world.file(kRoot, "g");
  using Mode = Names::XattrMode;

  SECTION("set, get, list, remove") {
    world.clock.advance_ns(5);
    must(names.set_xattr(file, "user.b", "1", Mode::kAny));
    must(names.set_xattr(file, "user.a", "", Mode::kCreate));
    must(names.set_xattr(other, "user.c", "x", Mode::kAny));
    REQUIRE(world.get(file)->ctime_ns == world.clock.now_ns());
    REQUIRE(world.get(file)->xattr_count == 2);
    REQUIRE(must(names.xattr(file, "user.b")) == "1");
    REQUIRE(must(names.xattr(file, "user.a")).empty());
    REQUIRE(must(names.list_xattrs(file)) == Strings{"user.a", "user.b"});
    must(names.set_xattr(file, "user.b", std::string("\0\xff", 2), Mode::kReplace));
    REQUIRE(must(names.xattr(file, "user.b")) == std::string("\0\xff", 2));
    REQUIRE(world.get(file)->xattr_count == 2);
    must(names.remove_xattr(file, "user.a"));
    REQUIRE(must(names.list_xattrs(file)) == Strings{"user.b"});
    must(names.remove_xattr(file, "user.b"));
    REQUIRE(world.get(file)->xattr_count == 0);
    REQUIRE(must(names.list_xattrs(file)).empty());
  }
  SECTION("limits") {
    const std::string longest(255, 'n');
    must(names.set_xattr(file, longest, std::string(65536, 'v'), Mode::kAny));
    REQUIRE(must(names.xattr(file, longest)).size() == 65536);
    REQUIRE(err(names.set_xattr(file, longest + "n", "", Mode::kAny)) == ERANGE);
    REQUIRE(err(names.set_xattr(file, "", "", Mode::kAny)) == ERANGE);
    REQUIRE(err(names.set_xattr(file, std::string("a\0b", 3), "", Mode::kAny)) == EINVAL);
    REQUIRE(err(names.set_xattr(file, "user.x", std::string(65537, 'v'), Mode::kAny)) == E2BIG);
    REQUIRE(err(names.xattr(file, longest + "n")) == ERANGE);
    REQUIRE(err(names.remove_xattr(file, "")) == ERANGE);
  }
  SECTION("errors") {
    REQUIRE(err(names.xattr(file, "user.x")) == ENODATA);
    REQUIRE(err(names.remove_xattr(file, "user.x")) == ENODATA);
    REQUIRE(err(names.set_xattr(file, "user.x", "", Mode::kReplace)) == ENODATA);
    must(names.set_xattr(file, "user.x", "", Mode::kAny));
    REQUIRE(err(names.set_xattr(file, "user.x", "", Mode::kCreate)) == EEXIST);
    REQUIRE(err(names.xattr(file, "user.y")) == ENODATA);
    REQUIRE(err(names.remove_xattr(file, "user.y")) == ENODATA);
    REQUIRE(err(names.xattr(kNowhere, "user.x")) == ENOENT);
    REQUIRE(err(names.set_xattr(kNowhere, "user.x", "", Mode::kAny)) == ENOENT);
    REQUIRE(err(names.remove_xattr(kNowhere, "user.x")) == ENOENT);
    REQUIRE(err(names.list_xattrs(kNowhere)) == ENOENT);
  }
  SECTION("many go with their inode, in steps") {
    for (int i = 0; i < 200; ++i) {
      must(names.set_xattr(file, "user." + std::to_string(i), "v", Mode::kAny));
    }
    REQUIRE(must(names.list_xattrs(file)).size() == 200);
    must(names.unlink(kRoot, "f"));
    REQUIRE(must(names.xattr(file, "user.7")) == "v");
    const TxnSeq before = world.core().meta->committed();
    must(names.reap(file));
    REQUIRE(world.core().meta->committed() - before > 3);
    REQUIRE(err(names.list_xattrs(file)) == ENOENT);
  }
  world.close();
  world.require_clean();
}

TEST_CASE("a read-only store changes nothing") {
  NameWorld world;
  const InodeNo file = world.file(kRoot, "f");
  const InodeNo dir = world.mkdir(kRoot, "d");
  must(world.names().set_xattr(file, "user.x", "v", Names::XattrMode::kAny));
  world.close();
  OpenOptions options;
  options.read_only = true;
  options.background = false;
  const auto store = must(Store::open(world.store_dir(), std::move(options)));
  Names& names = store->names();
  REQUIRE(must(names.lookup(kRoot, "f"))->ino == file);
  REQUIRE(must(names.xattr(file, "user.x")) == "v");
  REQUIRE(listed(names, kRoot) == Strings{"d", "f"});
  REQUIRE(err(names.create(kRoot, "x", NameWorld::regular())) == EROFS);
  REQUIRE(err(names.create_unnamed(NameWorld::regular())) == EROFS);
  REQUIRE(err(names.link(file, dir, "x")) == EROFS);
  REQUIRE(err(names.unlink(kRoot, "f")) == EROFS);
  REQUIRE(err(names.rmdir(kRoot, "d")) == EROFS);
  REQUIRE(err(names.rename(kRoot, "f", dir, "f", RenameMode::kReplace)) == EROFS);
  AttrChange what;
  what.uid = 1;
  REQUIRE(err(names.change(file, what)) == EROFS);
  REQUIRE(err(names.set_xattr(file, "user.x", "", Names::XattrMode::kAny)) == EROFS);
  REQUIRE(err(names.remove_xattr(file, "user.x")) == EROFS);
  REQUIRE(err(names.reap(file)) == 0);
}

TEST_CASE("what was synced survives a crash") {
  NameWorld world;
  const InodeNo dir = world.mkdir(kRoot, "d");
  const InodeNo file = world.file(dir, "f");
  must(world.names().set_xattr(file, "user.x", "v", Names::XattrMode::kAny));
  must(world.names().rename(dir, "f", kRoot, "g", RenameMode::kReplace));
  world.crash();
  world.require_clean();
  world.open();
  REQUIRE(must(world.names().lookup(kRoot, "g"))->ino == file);
  REQUIRE(must(world.names().xattr(file, "user.x")) == "v");
  REQUIRE(listed(world.names(), dir).empty());
}

}  // namespace
}  // namespace odx
