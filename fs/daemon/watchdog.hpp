// Ends the FUSE connection when the daemon dies.
#pragma once

#include <sys/types.h>

#include <string>

#include "base/result.hpp"

namespace odx::daemon {

// A child process that waits for the death of this one and then aborts the connection of the mount,
// so that whoever waits for it gets ECONNABORTED.
class Watchdog {
 public:
  Watchdog() = default;
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;
  ~Watchdog() { stop(); }

  // From the main thread; after mounting. Standard input becomes the file that tells the
  // child.
  Result<void> start(const std::string& mount_point, dev_t device);
  // Once the mount is gone: its device number may be somebody else's soon.
  void stop();

 private:
  pid_t child_ = -1;
};

}  // namespace odx::daemon
