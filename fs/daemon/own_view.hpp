// The daemon as a user of its own mount: the only way to move times that the kernel keeps.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <string>

#include "base/fd.hpp"
#include "base/types.hpp"

namespace odx::daemon {

// Opens files of the mount by number. Needs CAP_DAC_READ_SEARCH; without it every call does
// nothing. Only to be used while a request through a descriptor of the same file is being served:
// that descriptor pins the mount and the inode, so that this cannot get into the way of an unmount.
// Never on a receiving thread: each call makes requests to this daemon.
class OwnView {
 public:
  OwnView(std::string mount_point, dev_t device)
      : mount_point_(std::move(mount_point)), device_(device) {}

  // Sets the file's modification (and change) time to now. False: could not.
  bool touch(InodeNo ino);
  // Writes the file's dirty pages back and waits for them. False: could not.
  bool write_back(InodeNo ino);

 private:
  [[nodiscard]] Fd open(InodeNo ino, int flags);

  const std::string mount_point_;
  const dev_t device_;
  std::atomic<bool> forbidden_{false};
};

}  // namespace odx::daemon
