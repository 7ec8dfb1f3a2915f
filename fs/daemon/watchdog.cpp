// Why this is needed: the daemon's own threads wait for the kernel, which waits for the daemon,
// when they have it write dirty pages back (coherence.cpp). If the process is killed at that
// moment, such a thread cannot be interrupted, keeps /dev/fuse open by being alive, and so keeps
// itself, the store's lock, and every program that uses the mount waiting for ever. Somebody
// outside has to abort the connection.
//
// How a child of the daemon learns of the death although the dying may never end:
//   - A thread hangs in a system call. The main thread ends all the same, and the kernel then sends
//     the child its death signal. This needs the child to be forked by the main thread.
//   - The main thread is the last one, and hangs where the kernel closes the process's files for
//   it:
//     one of them is a file of our own mount, and closing that writes it back. That is before the
//     death signal. But files are closed in the order of their numbers, and closing number 0 gives
//     up a POSIX record lock at once, for which the child waits. (What a file's last release does,
//     the end of a pipe for one, is put off until after the last of them is closed.)
#include "watchdog.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <climits>

#include "base/fd.hpp"

namespace odx::daemon {

namespace {

// Where the kernel lets a connection be aborted, by its owner and by root.
constexpr const char* kControls = "/sys/fs/fuse/connections";

bool write_one(const std::string& file) {
  const int fd = ::open(file.c_str(), O_WRONLY | O_CLOEXEC);
  return fd >= 0 && ::write(fd, "1", 1) == 1;
}

// The controls are a filesystem that need not be mounted, in containers above all. Root can have it
// for itself.
bool write_one_to_own_controls(const std::string& file) {
  if (::unshare(CLONE_NEWNS) != 0) {
    return false;
  }
  // Fails in a chroot; then others may see the mount come and go.
  ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr);
  if (::mount("fusectl", kControls, "fusectl", MS_NOSUID | MS_NODEV | MS_NOEXEC, nullptr) != 0) {
    return false;
  }
  const bool written = write_one(file);
  ::umount2(kControls, MNT_DETACH);
  return written;
}

void abort_connection(const std::string& mount_point, const std::string& control) {
  if (write_one(control) || write_one_to_own_controls(control)) {
    return;
  }
  // A forced unmount aborts too. Held busy, the mount itself stays: its users shall find out.
  const int busy = ::open(mount_point.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (busy >= 0) {
    ::umount2(mount_point.c_str(), MNT_FORCE);
  }
}

struct Orders {
  std::string mount_point;
  std::string control;
};
const Orders* g_orders = nullptr;  // of the child; system calls are all that is done with it

[[noreturn]] void act() {
  abort_connection(g_orders->mount_point, g_orders->control);
  ::_exit(0);
}

flock whole_file() {
  flock lock{};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  return lock;
}

// The child. Descriptor 0 is the file that the parent has locked.
[[noreturn]] void watch(pid_t parent, const Orders& orders) {
  ::setsid();  // not the terminal's signals
  ::close_range(1, UINT_MAX, 0);
  g_orders = &orders;
  struct sigaction action {};
  action.sa_handler = [](int) { act(); };
  ::sigaction(SIGUSR1, &action, nullptr);
  sigset_t death;
  ::sigemptyset(&death);
  ::sigaddset(&death, SIGUSR1);
  ::sigprocmask(SIG_UNBLOCK, &death, nullptr);
  ::prctl(PR_SET_PDEATHSIG, SIGUSR1);
  ::prctl(PR_SET_NAME, "odxfs-watchdog");
  flock lock = whole_file();
  if (::getppid() == parent && ::fcntl(STDIN_FILENO, F_SETLKW, &lock) != 0 && errno != EINTR) {
    ::pause();  // the death signal has to do
  }
  // No other signal has a handler; a sanitizer's runtime may put that of the death signal off.
  act();
}

}  // namespace

Result<void> Watchdog::start(const std::string& mount_point, dev_t device) {
  // A core dump would wait for the very thread that cannot be interrupted.
  ::prctl(PR_SET_DUMPABLE, 0);
  // Everything that takes memory is done before the fork.
  const Orders orders{mount_point, fmt::format("{}/{}/abort", kControls, minor(device))};
  const pid_t parent = ::getpid();
  Fd file(::memfd_create("odxfs-watchdog", MFD_CLOEXEC));
  if (!file.valid() || ::dup3(file.get(), STDIN_FILENO, O_CLOEXEC) < 0) {
    return fail(errno, "cannot start the watchdog");
  }
  // Before the lock: closing any descriptor of a file gives up the process's locks on it.
  file.reset();
  flock lock = whole_file();
  if (::fcntl(STDIN_FILENO, F_SETLK, &lock) != 0) {
    return fail(errno, "cannot start the watchdog");
  }
  child_ = ::fork();
  if (child_ < 0) {
    return fail(errno, "cannot start the watchdog");
  }
  if (child_ == 0) {
    watch(parent, orders);
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
