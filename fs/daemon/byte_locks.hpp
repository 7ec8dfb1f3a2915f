// Byte-range locks that programs hold on files of the mount. The kernel keeps them (the mount does
// not ask for FUSE_POSIX_LOCKS), so they are looked up in /proc/locks.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string_view>

#include "base/types.hpp"

namespace odx::daemon {

// A POSIX or OFD lock that is held; flock(2) locks, leases and waiters are none.
struct ByteLock {
  dev_t device = 0;
  InodeNo ino;
  bool exclusive = false;
  pid_t process = -1;  // -1: an OFD lock, which belongs to no process
  std::uint64_t first = 0;
  std::uint64_t last = 0;
};
std::optional<ByteLock> parse_lock_line(std::string_view line);

// Whether a lock stands against I/O on [first, last] by `thread` (as FUSE tells it): for reading,
// somebody else's exclusive lock; for writing, also any shared lock. False if /proc can't be read.
// Locks of processes that this process's pid namespace does not show are not seen.
[[nodiscard]] bool range_is_locked(dev_t device, InodeNo ino, std::uint64_t first,
                                   std::uint64_t last, bool for_writing, pid_t thread);

}  // namespace odx::daemon
