// The first thing that a program does.
#pragma once

#include <fcntl.h>

#include <cerrno>

namespace odx {

// Who starts a program may give it no standard streams (`<&- >&-`). The next files that it opens
// would then get their numbers, be written to by messages, and be closed by whoever means the
// streams: a store's lock, say. This puts /dev/null (or at least something harmless) in the missing
// places. False: that is impossible, and the program must end.
inline bool open_missing_standard_streams() {
  for (int fd = 0; fd <= 2; ++fd) {
    if (::fcntl(fd, F_GETFD) >= 0 || errno != EBADF) {
      continue;
    }
    // The lowest free number is this one, for all below it are taken.
    const int null = ::open("/dev/null", fd == 0 ? O_RDONLY : O_WRONLY);
    if (null != fd && (null >= 0 || ::open("/", O_PATH | O_DIRECTORY) != fd)) {
      return false;
    }
  }
  return true;
}

}  // namespace odx
