#include "attributes.hpp"

#include <linux/stat.h>

#include <algorithm>
#include <limits>

#include "base/clock.hpp"
#include "base/types.hpp"

namespace odx::daemon {

namespace {

constexpr std::uint32_t kStatSectorBytes = 512;

std::uint64_t stat_blocks(const Inode& inode) {
  return inode.is_regular() ? round_up(inode.tree.data_bytes(), kBlockBytes) / kStatSectorBytes : 0;
}

struct SplitTime {
  std::int64_t seconds;
  std::uint32_t nanoseconds;
};

SplitTime split(std::int64_t ns) {
  std::int64_t seconds = ns / kNsPerSecond;
  std::int64_t rest = ns % kNsPerSecond;
  if (rest < 0) {  // times before 1970 count their nanoseconds forwards, too
    --seconds;
    rest += kNsPerSecond;
  }
  return {seconds, static_cast<std::uint32_t>(rest)};
}

abi::StatxTime to_statx_time(std::int64_t ns) {
  const SplitTime t = split(ns);
  return {t.seconds, t.nanoseconds, 0};
}

}  // namespace

fuse_attr to_fuse_attr(const Inode& inode) {
  const SplitTime atime = split(inode.atime_ns);
  const SplitTime mtime = split(inode.mtime_ns);
  const SplitTime ctime = split(inode.ctime_ns);
  fuse_attr attr{};
  attr.ino = inode.ino.value();
  attr.size = inode.size();
  attr.blocks = stat_blocks(inode);
  attr.atime = static_cast<std::uint64_t>(atime.seconds);
  attr.mtime = static_cast<std::uint64_t>(mtime.seconds);
  attr.ctime = static_cast<std::uint64_t>(ctime.seconds);
  attr.atimensec = atime.nanoseconds;
  attr.mtimensec = mtime.nanoseconds;
  attr.ctimensec = ctime.nanoseconds;
  attr.mode = inode.mode;
  attr.nlink = inode.nlink;
  attr.uid = inode.uid;
  attr.gid = inode.gid;
  attr.rdev = inode.rdev;
  attr.blksize = static_cast<std::uint32_t>(kBlockBytes);
  return attr;
}

abi::Statx to_statx(const Inode& inode) {
  abi::Statx st{};
  st.mask = STATX_BASIC_STATS | STATX_BTIME;
  st.blksize = static_cast<std::uint32_t>(kBlockBytes);
  st.nlink = inode.nlink;
  st.uid = inode.uid;
  st.gid = inode.gid;
  st.mode = static_cast<std::uint16_t>(inode.mode);
  st.ino = inode.ino.value();
  st.size = inode.size();
  st.blocks = stat_blocks(inode);
  st.atime = to_statx_time(inode.atime_ns);
  st.btime = to_statx_time(inode.btime_ns);
  st.ctime = to_statx_time(inode.ctime_ns);
  st.mtime = to_statx_time(inode.mtime_ns);
  // The protocol packs device numbers as the kernel does: 12 bits of major inside 20 of minor.
  st.rdev_major = (inode.rdev & 0xFFF00U) >> 8;
  st.rdev_minor = (inode.rdev & 0xFFU) | ((inode.rdev >> 12) & 0xFFF00U);
  return st;
}

fuse_entry_out to_entry(const Inode& inode) {
  fuse_entry_out entry{};
  entry.nodeid = inode.ino.value();
  entry.generation = kGeneration;
  entry.entry_valid = kCacheSeconds;
  entry.attr_valid = kCacheSeconds;
  entry.attr = to_fuse_attr(inode);
  return entry;
}

std::int64_t to_ns(std::uint64_t seconds, std::uint32_t nanoseconds) {
  constexpr std::int64_t kLast = std::numeric_limits<std::int64_t>::max() / kNsPerSecond - 1;
  const std::int64_t bounded = std::clamp(static_cast<std::int64_t>(seconds), -kLast, kLast);
  return bounded * kNsPerSecond + nanoseconds;
}

}  // namespace odx::daemon
