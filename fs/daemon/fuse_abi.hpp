// The kernel's FUSE protocol, and those parts of it that are newer than the headers of Debian 12
// (protocol 7.38; this file knows up to 7.45). Numbers and layouts are kernel ABI.
#pragma once

#include <linux/fuse.h>

#include <cstddef>
#include <cstdint>

namespace odx::daemon::abi {

inline constexpr std::uint32_t kOpStatx = 52;
inline constexpr std::uint32_t kOpCopyFileRange64 = 53;

// INIT flags above bit 31 travel in flags2, shifted down.
inline constexpr std::uint64_t kInitDirectIoAllowMmap = 1ULL << 36;

struct CopyFileRangeOut {
  std::uint64_t bytes_copied;
};

struct StatxIn {
  std::uint32_t getattr_flags;
  std::uint32_t reserved;
  std::uint64_t fh;
  std::uint32_t sx_flags;
  std::uint32_t sx_mask;
};
static_assert(sizeof(StatxIn) == 24);

struct StatxTime {
  std::int64_t seconds;
  std::uint32_t nanoseconds;
  std::int32_t reserved;
};

struct Statx {
  std::uint32_t mask;
  std::uint32_t blksize;
  std::uint64_t attributes;
  std::uint32_t nlink;
  std::uint32_t uid;
  std::uint32_t gid;
  std::uint16_t mode;
  std::uint16_t spare0;
  std::uint64_t ino;
  std::uint64_t size;
  std::uint64_t blocks;
  std::uint64_t attributes_mask;
  StatxTime atime;
  StatxTime btime;
  StatxTime ctime;
  StatxTime mtime;
  std::uint32_t rdev_major;
  std::uint32_t rdev_minor;
  std::uint32_t dev_major;
  std::uint32_t dev_minor;
  std::uint64_t spare2[14];
};
static_assert(sizeof(Statx) == 256);

struct StatxOut {
  std::uint64_t attr_valid;
  std::uint32_t attr_valid_nsec;
  std::uint32_t flags;
  std::uint64_t spare[2];
  Statx stat;
};
static_assert(sizeof(StatxOut) == 288);

// What precedes the data of a WRITE.
inline constexpr std::size_t kWriteHeaderBytes = sizeof(fuse_in_header) + sizeof(fuse_write_in);
static_assert(kWriteHeaderBytes == 80);

// The largest READ or WRITE: 256 pages (fs.fuse.max_pages_limit).
inline constexpr std::size_t kMaxPayloadBytes = std::size_t{1} << 20;

}  // namespace odx::daemon::abi
