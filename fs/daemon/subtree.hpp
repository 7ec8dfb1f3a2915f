// Directories of a mounted store as mount points of their own. They are bind mounts of one mount:
// one connection, one page cache, one set of inode numbers, so everything stays coherent between
// them, and the kernel keeps who uses one inside it. All of this takes CAP_SYS_ADMIN.
#pragma once

#include <string>
#include <utility>

#include "base/fd.hpp"
#include "base/result.hpp"
#include "mount.hpp"
#include "options.hpp"

namespace odx::daemon {

// A mount, not attached anywhere yet, of the directory `subdir` (relative; empty: of the whole)
// below the mount point `mounted`. No symbolic link leads out of there. `options` tells the flags
// of the new mount; only those for one mount (ro, nosuid, nodev, noexec, nosymfollow) have effect.
Result<Fd> clone_subtree(const std::string& mounted, const std::string& subdir,
                         const Options& options);
Result<void> attach_mount(const Fd& mount, const std::string& mount_point);

// `-o join`: makes options.mount_point another mount point of the store, if it is mounted already.
// False: no daemon serves it. ENOENT if options.subdir is not below what is mounted.
Result<bool> join_mount(const Options& options);

// A directory for a mount that nobody but root shall reach; gone at the end.
class PrivatePlace {
 public:
  static Result<PrivatePlace> make();
  PrivatePlace(PrivatePlace&& other) noexcept : outer_(std::exchange(other.outer_, {})) {}
  PrivatePlace& operator=(PrivatePlace&& other) = delete;
  ~PrivatePlace();
  [[nodiscard]] std::string path() const { return outer_ + "/mount"; }

 private:
  explicit PrivatePlace(std::string outer) : outer_(std::move(outer)) {}
  std::string outer_;
};

}  // namespace odx::daemon
