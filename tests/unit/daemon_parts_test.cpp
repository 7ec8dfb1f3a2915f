// The parts of the daemon that need no kernel: what it parses, counts and converts.
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "acl.hpp"
#include "attributes.hpp"
#include "base/codec.hpp"
#include "byte_locks.hpp"
#include "hurry.hpp"
#include "inode_table.hpp"
#include "mount.hpp"
#include "options.hpp"
#include "watchdog.hpp"

using namespace odx;
using namespace odx::daemon;

namespace {

Result<Options> parse(std::vector<const char*> arguments) {
  arguments.insert(arguments.begin(), "odxfs");
  return parse_command_line(static_cast<int>(arguments.size()), arguments.data());
}

std::string complaint(std::vector<const char*> arguments) {
  const Result<Options> options = parse(std::move(arguments));
  REQUIRE_FALSE(options.has_value());
  return options.error().detail();
}

struct AclEntry {
  std::uint16_t tag;
  std::uint16_t permissions;
  std::uint32_t id = UINT32_MAX;
};
constexpr std::uint16_t kUserObj = 1, kUser = 2, kGroupObj = 4, kMask = 16, kOther = 32;

std::string xattr_of(const std::vector<AclEntry>& entries, std::uint32_t version = 2) {
  std::string out;
  put_le(out, version);
  for (const AclEntry& entry : entries) {
    put_le(out, entry.tag);
    put_le(out, entry.permissions);
    put_le(out, entry.id);
  }
  return out;
}

const std::vector<AclEntry> kExtended = {
    {kUserObj, 7}, {kUser, 6, 1000}, {kGroupObj, 5}, {kMask, 7}, {kOther, 4}};

}  // namespace

TEST_CASE("a command line") {
  const Result<Options> plain = parse({"store", "place"});
  REQUIRE(plain.has_value());
  CHECK(plain->store == "store");
  CHECK(plain->mount_point == "place");
  CHECK(plain->mount_flags == (MS_NOSUID | MS_NODEV));
  CHECK(plain->writeback);
  CHECK(plain->offload);
  CHECK_FALSE(plain->foreground);
  CHECK_FALSE(plain->read_only);

  const Result<Options> full =
      parse({"-o", "ro,no_writeback,,odx_extend", "store", "-f", "-onoatime,dev,no_offload", "-o",
             "odx_token_scope=user,odx_ttl_max=9,io=buffered,engine=sync,flush=7", "place"});
  REQUIRE(full.has_value());
  CHECK(full->read_only);
  CHECK(full->foreground);
  CHECK(full->extend);
  CHECK(full->tokens_bound_to_user);
  CHECK(full->mount_flags == MS_NOSUID);
  CHECK(full->access_time == AccessTime::kNever);
  CHECK_FALSE(full->writeback);
  CHECK_FALSE(full->offload);
  CHECK(full->ttl_max == std::chrono::seconds(9));
  CHECK(full->flush_interval == std::chrono::milliseconds(7));
  CHECK(full->device.mode == IoMode::kBuffered);
  CHECK(full->device.engine == IoEngineKind::kSync);

  CHECK(parse({"-o", "defaults,user=me,x-systemd.automount,_netdev,fsname=a=b", "s", "m"}));
  CHECK(parse({"--", "-s", "-m"})->store == "-s");
  CHECK(parse({"--help"})->help);
  CHECK(parse({"-V"})->version);
}

TEST_CASE("a command line that is not understood names what it is about") {
  CHECK_THAT(complaint({"s", "m", "-o", "rw,sparkle"}), Catch::Contains("sparkle"));
  CHECK_THAT(complaint({"s", "m", "-o", "sparkle=1"}), Catch::Contains("sparkle"));
  CHECK_THAT(complaint({"s", "m", "-o", "flush=soon"}), Catch::Contains("soon"));
  CHECK_THAT(complaint({"s", "m", "-o", "odx_ttl_max=0"}), Catch::Contains("odx_ttl_max"));
  CHECK_THAT(complaint({"s", "m", "-o", "flush=99999999999999999999"}), Catch::Contains("flush"));
  CHECK_THAT(complaint({"s", "m", "-o", "flush=0"}), Catch::Contains("flush"));
  CHECK_THAT(complaint({"s", "m", "-o", "io=odd"}), Catch::Contains("odd"));
  CHECK_THAT(complaint({"s", "m", "-o"}), Catch::Contains("-o"));
  CHECK_THAT(complaint({"s", "m", "--fast"}), Catch::Contains("--fast"));
  CHECK_FALSE(complaint({"s"}).empty());
  CHECK_FALSE(complaint({"s", "m", "n"}).empty());
}

TEST_CASE("options for parts of a store and for the limits of tokens") {
  const Result<Options> options =
      parse({"store", "mnt", "-o", "join,subdir=//a/b//,odx_tokens_max=5",
             "-oodx_tokens_max_user=0,odx_pinned_max=18446744073709551615,odx_pinned_max_user=7"});
  REQUIRE(options.has_value());
  CHECK(options->join);
  CHECK(options->subdir == "a/b");
  CHECK(options->tokens_max == 5);
  CHECK(options->tokens_max_per_user == 0);
  CHECK(options->pinned_max == UINT64_MAX);
  CHECK(options->pinned_max_per_user == 7);
  CHECK(parse({"store", "mnt", "-o", "subdir=/"})->subdir.empty());
  CHECK(complaint({"s", "m", "-o", "odx_tokens_max=many"}).find("odx_tokens_max") !=
        std::string::npos);
}

TEST_CASE("a failed write-back is told once, and only of files that are known") {
  InodeTable table;
  table.write_back_failed(InodeNo(7), ENOSPC);
  CHECK(table.take_write_back_error(InodeNo(7)) == 0);
  table.opened(InodeNo(7), true);
  table.write_back_failed(InodeNo(7), ENOSPC);
  CHECK(table.take_write_back_error(InodeNo(8)) == 0);
  CHECK(table.take_write_back_error(InodeNo(7)) == ENOSPC);
  CHECK(table.take_write_back_error(InodeNo(7)) == 0);
}

TEST_CASE("lines of mountinfo") {
  const auto entry = parse_mountinfo_line(
      "36 35 0:39 / /mnt/a\\040b rw,nosuid shared:1 master:2 - fuse.odxfs /a\\134b rw,fd=3");
  REQUIRE(entry.has_value());
  CHECK(entry->device == makedev(0, 39));
  CHECK(entry->root == "/");
  CHECK(entry->mount_point == "/mnt/a b");
  CHECK(entry->type == "fuse.odxfs");
  CHECK(entry->source == "/a\\b");
  CHECK(parse_mountinfo_line("36 35 98:0 / /m rw - ext4 /dev/x rw")->type == "ext4");
  CHECK_FALSE(parse_mountinfo_line(""));
  CHECK_FALSE(parse_mountinfo_line("36 35 0:39 / /m rw fuse.odxfs s rw"));
  CHECK_FALSE(parse_mountinfo_line("36 35 zero / /m rw - t s rw"));
  CHECK_FALSE(parse_mountinfo_line("36 35 0: / /m rw - t s rw"));
  CHECK_FALSE(parse_mountinfo_line("36 35 0:39 / /m rw - t"));
  CHECK_FALSE(entry->owner);
  const auto owner_in = [](const std::string& options) {
    return parse_mountinfo_line("36 35 0:39 / /m rw - fuse.odxfs s " + options)->owner;
  };
  CHECK(owner_in("rw,user_id=0,group_id=7") == 0U);
  CHECK(owner_in("user_id=65534") == 65534U);
  CHECK_FALSE(owner_in("rw,user_id=,group_id=1"));
  CHECK_FALSE(owner_in("rw,user_id=1x"));
  CHECK_FALSE(owner_in("rw,not_user_id=1"));
}

// When a process dies, the last release of its files is put off until all of them are closed, and
// closing one may wait for the watchdog. So it must not take the release to set it off.
TEST_CASE("the watchdog acts as soon as descriptor 0 is closed, though the file lives on") {
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    ::alarm(300);  // not to wait for ever
    Watchdog watchdog;
    if (!watchdog.start("/nowhere", makedev(0, 0xFFFFF))) {
      ::_exit(2);
    }
    if (::waitpid(-1, nullptr, WNOHANG) != 0) {
      ::_exit(3);  // it acted already
    }
    if (::dup(STDIN_FILENO) < 0 || ::close(STDIN_FILENO) != 0) {
      ::_exit(4);
    }
    int status = 0;
    ::_exit(::waitpid(-1, &status, 0) > 0 && status == 0 ? 0 : 5);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK(status == 0);
}

TEST_CASE("lines of /proc/locks") {
  const auto posix = parse_lock_line("1: POSIX  ADVISORY  WRITE 1234 fe:0a:5678 0 EOF");
  REQUIRE(posix.has_value());
  CHECK(posix->device == makedev(0xFE, 0x0A));
  CHECK(posix->ino == InodeNo(5678));
  CHECK(posix->exclusive);
  CHECK(posix->process == 1234);
  CHECK(posix->first == 0);
  CHECK(posix->last == UINT64_MAX);
  const auto ofd = parse_lock_line("12: OFDLCK ADVISORY  READ  -1 00:2d:7 100 199");
  REQUIRE(ofd.has_value());
  CHECK_FALSE(ofd->exclusive);
  CHECK(ofd->process == -1);
  CHECK(ofd->last == 199);
  CHECK_FALSE(parse_lock_line("1: FLOCK  ADVISORY  WRITE 1 fe:00:1 0 EOF"));
  CHECK_FALSE(parse_lock_line("1: -> POSIX  ADVISORY  WRITE 1 fe:00:1 0 EOF"));
  CHECK_FALSE(parse_lock_line("1: POSIX  ADVISORY  WRITE 1 fe:00 0 EOF"));
  CHECK_FALSE(parse_lock_line("1: POSIX  ADVISORY  WRITE 1 fe:00:1 0"));
  CHECK_FALSE(parse_lock_line(""));
}

TEST_CASE("access lists") {
  const auto acl = Acl::decode(xattr_of(kExtended));
  REQUIRE(acl.has_value());
  CHECK(acl->encode() == xattr_of(kExtended));
  CHECK_FALSE(acl->is_trivial());
  CHECK(acl->permissions() == 0774);  // the group bits are the mask

  // open(2) with mode 0640 below a directory with this default list
  const Acl inherited = acl->inherited(0640);
  CHECK(inherited.permissions() == 0640);
  CHECK(inherited.encode() ==
        xattr_of({{kUserObj, 6}, {kUser, 6, 1000}, {kGroupObj, 5}, {kMask, 4}, {kOther, 0}}));
  CHECK(acl->with_permissions(0117).encode() ==
        xattr_of({{kUserObj, 1}, {kUser, 6, 1000}, {kGroupObj, 5}, {kMask, 1}, {kOther, 7}}));

  const auto small = Acl::decode(xattr_of({{kUserObj, 6}, {kGroupObj, 4}, {kOther, 0}}));
  REQUIRE(small.has_value());
  CHECK(small->is_trivial());
  CHECK(small->permissions() == 0640);
  CHECK(small->with_permissions(0755).permissions() == 0755);
}

TEST_CASE("access lists that are none") {
  CHECK_FALSE(Acl::decode(""));
  CHECK_FALSE(Acl::decode(xattr_of({})));
  CHECK_FALSE(Acl::decode(xattr_of(kExtended, 1)));
  CHECK_FALSE(Acl::decode(xattr_of(kExtended).substr(0, 11)));
  CHECK_FALSE(Acl::decode(xattr_of({{kUserObj, 8}, {kGroupObj, 4}, {kOther, 0}})));
  CHECK_FALSE(Acl::decode(xattr_of({{kUserObj, 6}, {kOther, 0}})));
  CHECK_FALSE(Acl::decode(xattr_of({{kUserObj, 6}, {kUser, 6, 1}, {kGroupObj, 4}, {kOther, 0}})));
}

TEST_CASE("who keeps a nameless inode alive") {
  InodeTable table;
  const InodeNo ino(7);

  SECTION("the last forget reaps it") {
    table.add_lookups(ino);
    table.add_lookups(ino, 2);
    CHECK_FALSE(table.has_no_name(ino));
    CHECK_FALSE(table.forget(ino, 2));
    CHECK(table.forget(ino, 1));
    CHECK_FALSE(table.forget(ino, 1));
  }
  SECTION("the last close does, if that comes later") {
    table.add_lookups(ino);
    table.opened(ino, true);
    CHECK_FALSE(table.has_no_name(ino));
    CHECK_FALSE(table.forget(ino, 1));
    CHECK(table.closed(ino, true));
  }
  SECTION("nobody knows it") { CHECK(table.has_no_name(ino)); }
  SECTION("an inode with a name is let go") {
    table.add_lookups(ino);
    CHECK_FALSE(table.forget(ino, 1));
    CHECK(table.has_no_name(ino));
  }
  SECTION("forgetting what was never told is harmless") {
    CHECK_FALSE(table.forget(ino, 5));
    CHECK_FALSE(table.closed(ino, false));
  }
}

TEST_CASE("a file may be dirty while it is open for writing") {
  InodeTable table;
  const InodeNo ino(9);
  table.opened(ino, false);
  CHECK_FALSE(table.may_be_dirty(ino));
  table.opened(ino, true);
  table.opened(ino, true);
  CHECK_FALSE(table.closed(ino, true));
  CHECK(table.may_be_dirty(ino));
  CHECK(table.all_maybe_dirty() == std::vector<InodeNo>{ino});
  CHECK_FALSE(table.closed(ino, true));
  CHECK_FALSE(table.may_be_dirty(ino));
  CHECK(table.all_maybe_dirty().empty());
}

TEST_CASE("attributes") {
  Inode inode;
  inode.ino = InodeNo(3);
  inode.mode = S_IFREG | 0644;
  inode.mtime_ns = -1;
  inode.btime_ns = 1'500'000'000;
  inode.tree.extents = {TreeEntry::data(PhysAddr(4096), 100), TreeEntry::hole(10'000),
                        TreeEntry::data(PhysAddr(8192), 4000)};
  inode.rdev = 0;
  const fuse_attr attr = to_fuse_attr(inode);
  CHECK(attr.size == 14'100);
  CHECK(attr.blocks == 16);  // 4100 bytes are two blocks
  CHECK(static_cast<std::int64_t>(attr.mtime) == -1);
  CHECK(attr.mtimensec == 999'999'999);
  CHECK(to_ns(attr.mtime, attr.mtimensec) == -1);
  CHECK(to_statx(inode).btime.seconds == 1);
  CHECK(to_statx(inode).btime.nanoseconds == 500'000'000);
  CHECK(to_ns(UINT64_MAX / 2, 5) > 0);  // far in the future, but no overflow

  inode.tree.extents = {TreeEntry::data(PhysAddr(4096), 5001)};
  CHECK(to_fuse_attr(inode).blocks * 512 >= 5001);

  inode.mode = S_IFCHR | 0600;
  inode.rdev = 0x12345678;
  CHECK(to_statx(inode).rdev_major == major(dev_t{0x12345678}));
  CHECK(to_statx(inode).rdev_minor == minor(dev_t{0x12345678}));
}

TEST_CASE("help comes to who takes long") {
  std::mutex mutex;
  std::condition_variable changed;
  int helped = 0;
  {
    Hurry hurry(std::chrono::milliseconds(1), [&] {
      const std::lock_guard lock(mutex);
      ++helped;
      changed.notify_all();
    });
    const Hurry::Watch slow(hurry);
    std::unique_lock lock(mutex);
    REQUIRE(changed.wait_for(lock, std::chrono::seconds(60), [&] { return helped == 1; }));
  }
  {
    Hurry hurry(std::chrono::hours(1), [&] { ++helped; });
    std::vector<std::jthread> users;
    for (int i = 0; i < 4; ++i) {
      users.emplace_back([&] {
        for (int n = 0; n < 200; ++n) {
          const Hurry::Watch quick(hurry);
        }
      });
    }
  }
  CHECK(helped == 1);
}
