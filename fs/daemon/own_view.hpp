// The daemon as a user of its own mount: the only way to move times that the kernel keeps.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <string>

#include "base/fd.hpp"
#include "base/types.hpp"

namespace odx::daemon {

// Only to be used while a request through a descriptor of the mount is being served: that
// descriptor pins the mount (and the inode), so that this cannot get into the way of an unmount.
// Never on a receiving thread: each call makes requests to this daemon. All calls may fail (false),
// because the mount is hidden under another one, or for lack of a right.
class OwnView {
 public:
  OwnView(std::string mount_point, dev_t device)
      : mount_point_(std::move(mount_point)), device_(device) {}

  // These two open the file by its number, which takes CAP_DAC_READ_SEARCH. They may wait for the
  // kernel's lock on the inode.
  // Sets the file's modification and change times to now.
  bool touch(InodeNo ino);
  // Writes the file's dirty pages back and waits for them.
  bool write_back(InodeNo ino);

  // Has the kernel begin to write back everything that is dirty, in large pieces. Takes no lock on
  // any file.
  bool begin_write_back_of_all();

 private:
  [[nodiscard]] Fd open_root() const;
  [[nodiscard]] Fd open(InodeNo ino, int flags);

  const std::string mount_point_;
  const dev_t device_;
  std::atomic<bool> forbidden_{false};
};

}  // namespace odx::daemon
