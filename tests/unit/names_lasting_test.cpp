// Attributes, extended attributes, and what lasts: orphans, crashes, read-only stores.
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

TEST_CASE("an unnamed file") {
  NameWorld world;
  Names& names = world.names();
  const InodePtr made = must(names.create_unnamed(NameWorld::regular(0600)));
  REQUIRE(made->nlink == 0);
  const InodeNo groups = world.mkdir(kRoot, "groups");
  AttrChange change;
  change.mode = 02755;
  change.gid = 99;
  must(names.change(groups, change));
  REQUIRE(must(names.create_unnamed(NameWorld::regular(0600), groups))->gid == 99);
  REQUIRE(must(names.create_unnamed(NameWorld::regular(0600), kRoot))->gid == 0);
  REQUIRE(err(names.create_unnamed(NameWorld::regular(), made->ino)) == ENOTDIR);
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
