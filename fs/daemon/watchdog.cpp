// Why this is needed: the daemon's own threads wait for the kernel, which waits for the daemon, when
// they have it write dirty pages back (coherence.cpp). If the process is killed at that moment, such
// a thread cannot be interrupted, keeps /dev/fuse open by being alive, and so keeps itself, the
// store's lock, and every program that uses the mount waiting for ever. Somebody outside has to abort
// the connection. A child with no descriptor of its own is told by the kernel when its parent's main
// thread ends, which an uninterruptible other thread does not delay.

#include "watchdog.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include <climits>

namespace odx::daemon {

namespace {

void abort_connection(const std::string& mount_point, const std::string& control) {
  // Where the control filesystem is mounted; its owner is who mounted.
  const int fd = ::open(control.c_str(), O_WRONLY | O_CLOEXEC);
  if (fd >= 0 && ::write(fd, "1", 1) == 1) {
    return;
  }
  // A forced unmount aborts too. Held busy, the mount itself stays: its users shall find out.
  const int busy = ::open(mount_point.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (busy >= 0) {
    ::umount2(mount_point.c_str(), MNT_FORCE);
  }
}

[[noreturn]] void watch(pid_t parent, const std::string& mount_point, const std::string& control) {
  ::setsid();  // not the terminal's signals
  sigset_t death;
  ::sigemptyset(&death);
  ::sigaddset(&death, SIGUSR1);
  ::sigprocmask(SIG_BLOCK, &death, nullptr);
  ::prctl(PR_SET_PDEATHSIG, SIGUSR1);
  ::close_range(0, UINT_MAX, 0);
  ::prctl(PR_SET_NAME, "odxfs-watchdog");
  int number = 0;
  while (::getppid() == parent && ::sigwait(&death, &number) != 0) {
  }
  abort_connection(mount_point, control);
  ::_exit(0);
}

}  // namespace

Result<void> Watchdog::start(const std::string& mount_point, dev_t device) {
  // A core dump would wait for the very thread that cannot be interrupted.
  ::prctl(PR_SET_DUMPABLE, 0);
  // Everything that takes memory is done before the fork.
  const std::string control = fmt::format("/sys/fs/fuse/connections/{}/abort", minor(device));
  const pid_t parent = ::getpid();
  child_ = ::fork();
  if (child_ < 0) {
    return fail(errno, "cannot start the watchdog");
  }
  if (child_ == 0) {
    watch(parent, mount_point, control);
  }
  return {};
}

void Watchdog::stop() {
  if (child_ > 0) {
    ::kill(child_, SIGKILL);
    ::waitpid(child_, nullptr, 0);
    child_ = -1;
  }
}

}  // namespace odx::daemon
