// Names: every rule and errno by itself, rename left out.
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
using test::listed;
using test::must;
using test::NameWorld;

constexpr InodeNo kRoot = kRootInode;
constexpr InodeNo kNowhere{987654};

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
    for (const std::int64_t time :
         {made->atime_ns, made->mtime_ns, made->ctime_ns, made->btime_ns}) {
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
  const std::pair<std::string, int> bad[] = {{"", EINVAL},
                                             {"a/b", EINVAL},
                                             {std::string("a\0b", 3), EINVAL},
                                             {longest + "n", ENAMETOOLONG}};
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

}  // namespace
}  // namespace odx
