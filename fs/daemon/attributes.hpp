// An inode as the kernel wants to see it.
#pragma once

#include <cstdint>

#include "fuse_abi.hpp"
#include "store/inode/inode.hpp"

namespace odx::daemon {

// This daemon is the only writer, so what the kernel has learnt stays true until the kernel itself
// changes it or is told.
inline constexpr std::uint64_t kCacheSeconds = 30ULL * 24 * 3600;

// Inode numbers are never used again, so one generation does.
inline constexpr std::uint64_t kGeneration = 1;

// st_blocks covers st_size unless the file has holes: cp looks at that to find out whether it may
// ask for an offloaded copy.
[[nodiscard]] fuse_attr to_fuse_attr(const Inode& inode);
[[nodiscard]] abi::Statx to_statx(const Inode& inode);
[[nodiscard]] fuse_entry_out to_entry(const Inode& inode);

// Seconds as the protocol has them (signed, in an unsigned field); cut at what 64 bits of
// nanoseconds can hold.
[[nodiscard]] std::int64_t to_ns(std::uint64_t seconds, std::uint32_t nanoseconds);

}  // namespace odx::daemon
