// Mounting and unmounting: by mount(2) as root, by fusermount3 otherwise.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/fd.hpp"
#include "base/result.hpp"
#include "options.hpp"

namespace odx::daemon {

// Mounts `options.store` on `mount_point` (both absolute) and answers with the device that its
// requests come from. `read_only` as the store turned out. The errors are for people.
Result<Fd> mount_filesystem(const Options& options, const std::string& mount_point, bool read_only);

enum class UnmountMode {
  kIfIdle,  // writes everything back first; EBUSY if it is in use
  kDetach,  // vanishes from the tree at once, in use or not
};
Result<void> unmount_filesystem(const std::string& mount_point, UnmountMode mode);

struct MountEntry {
  dev_t device = 0;
  std::string root;  // the directory of the filesystem that is seen there: "/" is the whole
  std::string mount_point;
  std::string type;
  std::string source;
  std::optional<uid_t> owner;  // who made the mount, and so may be its daemon
};
// The line of a mountinfo file (proc(5)); nothing if it is not one.
std::optional<MountEntry> parse_mountinfo_line(std::string_view line);
// The newest mount of ours on `mount_point`, or from `source`. Touches no file system but /proc.
std::optional<MountEntry> find_mount_at(std::string_view mount_point);
std::optional<MountEntry> find_mount_of(std::string_view source);
// The newest mount of ours on the directory that a person calls `path`. The mount itself is not
// touched unless it cannot be told otherwise: one without a daemon answers nothing.
std::optional<MountEntry> find_mount_named(std::string path);
// All mounts of ours that say that they come from `source`, the newest first.
std::vector<MountEntry> find_mounts_of(std::string_view source);
// All mounts of ours with that device: the mount points of one daemon.
std::vector<MountEntry> find_mounts_with(dev_t device);

// A process that has a mount with that device in a mount namespace of its own, as far as this
// process may look.
std::optional<pid_t> other_holder_of(dev_t device);

// Whether the mount's daemon is gone. Asks the mount, so it must not be somebody else's.
bool is_dead(const MountEntry& entry);

// Lifts the kernel's caution with unknown daemons (128 KiB of read-ahead, 1 % of dirty memory).
// Best effort: needs root and /sys.
void tune_read_ahead(dev_t device);

}  // namespace odx::daemon
