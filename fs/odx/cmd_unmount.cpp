// odx unmount: umount(2) returns before the daemon has written everything back and closed the
// store; this command does not.
//
// The daemon of a writable mount holds an exclusive lock on the store's LOCK file for as long as it
// has the store open, and its pid stands in there. Both are looked at before unmounting, so there
// is no moment at which the daemon could go and something else be taken for it. The end of the
// process is what is waited for; the lock alone counts too, because the pid means nothing if the
// daemon lives in another pid namespace. The daemon of a read-only mount holds a shared lock, and
// only the kernel's list of locks tells its pid; others may hold one as well, so that it is waited
// for only while no other mount of the store is in sight.
#include <fcntl.h>
#include <fmt/core.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <fstream>
#include <optional>
#include <sstream>
#include <string>

#include "../daemon/mount.hpp"
#include "base/print.hpp"
#include "command.hpp"
#include "text.hpp"

namespace odx::cli {

namespace {

class RunningDaemon {
 public:
  // The daemon that has the store open; empty if there is none. Errors: the LOCK file cannot be
  // read.
  static Result<std::optional<RunningDaemon>> find(const std::string& store) {
    const std::string path = store + "/LOCK";
    Fd lock(::open(path.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
    if (!lock.valid()) {
      if (errno == ENOENT) {
        return std::nullopt;
      }
      return fail(errno, path);
    }
    RunningDaemon daemon(std::move(lock));
    if (daemon.closed_store()) {
      return std::nullopt;
    }
    if (::flock(daemon.lock_.get(), LOCK_SH | LOCK_NB) == 0) {  // readers: the pid is an old one
      ::flock(daemon.lock_.get(), LOCK_UN);
      daemon.process_ = open_process(only_reader(daemon.lock_));
      daemon.writer_.clear();
    }
    return daemon;
  }

  // False: `in_vain()` says that the daemon will not go.
  template <class InVain>
  bool wait_until_gone(InVain in_vain) {
    auto look = std::chrono::steady_clock::now();
    while (!exited(process_.valid() ? kSlowMs : kFastMs)) {
      if (closed_store()) {
        // All is safe. It has only to exit, if it is a process that can be seen from here.
        (void)exited(kSlowMs);
        return true;
      }
      if (const auto now = std::chrono::steady_clock::now(); now >= look) {
        if (in_vain()) {
          return false;
        }
        look = now + std::chrono::milliseconds(kSlowMs);
      }
    }
    return true;
  }

  // Once it is gone: whether it got everything to disk.
  [[nodiscard]] bool closed_well() const { return writer_.empty() || holder() != writer_; }

 private:
  // How often to look at the lock. Looking takes it for a moment, so not often without need.
  static constexpr int kSlowMs = 1000;
  static constexpr int kFastMs = 20;

  explicit RunningDaemon(Fd lock) : lock_(std::move(lock)) {
    writer_ = holder();
    if (const auto pid = parse_number(writer_)) {
      process_ = open_process(static_cast<pid_t>(*pid));
    }
  }

  // What the LOCK file says: the pid of a daemon that writes, until it has closed the store.
  [[nodiscard]] std::string holder() const {
    char text[32] = {};
    const ssize_t got = ::pread(lock_.get(), text, sizeof text - 1, 0);
    std::string line(text, got > 0 ? static_cast<std::size_t>(got) : 0);
    if (line.ends_with('\n')) {
      line.pop_back();
    }
    return line;
  }

  // Invalid if there is no such process, or it cannot be seen from here.
  static Fd open_process(pid_t pid) {
    return pid > 0 ? Fd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0))) : Fd();
  }

  // The one process that holds a shared lock on the file, as far as the kernel tells; else 0.
  static pid_t only_reader(const Fd& lock) {
    struct stat place {};
    if (::fstat(lock.get(), &place) != 0) {
      return 0;
    }
    const std::string file =
        fmt::format("{:02x}:{:02x}:{}", major(place.st_dev), minor(place.st_dev), place.st_ino);
    // "1: FLOCK  ADVISORY  READ 123 fd:00:456 0 EOF"
    std::ifstream locks("/proc/locks");
    pid_t found = 0;
    for (std::string line; std::getline(locks, line);) {
      std::istringstream words(line);
      std::string number;
      std::string kind;
      std::string how;
      std::string access;
      std::string where;
      pid_t pid = 0;
      if (words >> number >> kind >> how >> access >> pid >> where && kind == "FLOCK" &&
          where == file) {
        if (found != 0) {
          return 0;
        }
        found = pid;
      }
    }
    return found;
  }

  [[nodiscard]] bool closed_store() const {
    if (::flock(lock_.get(), LOCK_EX | LOCK_NB) != 0) {
      return false;
    }
    ::flock(lock_.get(), LOCK_UN);
    return true;
  }

  // Waits at most `ms`. Without a process to look at, just that.
  [[nodiscard]] bool exited(int ms) const {
    pollfd process{process_.get(), POLLIN, 0};  // a negative descriptor is ignored
    return ::poll(&process, 1, ms) > 0;
  }

  std::string writer_;  // empty: none that writes
  Fd lock_;
  Fd process_;  // pidfd
};

}  // namespace

int run_unmount(const Arguments& args, Streams& io) {
  CommandLine line("unmount MOUNTPOINT",
                   "Unmounts an odxfs and waits until its daemon has written everything back, has\n"
                   "closed the store and is gone; unless the store has other mount points.");
  line.operands(1, 1);
  if (const auto code = line.parse(args, io)) {
    return *code;
  }

  const std::string& path = line.operands()[0];
  const auto mount = daemon::find_mount_named(path);
  if (!mount) {
    complain(io, path, "not a mount point of odxfs");
    return kFailed;
  }
  auto running = RunningDaemon::find(mount->source);
  if (const auto done =
          daemon::unmount_filesystem(mount->mount_point, daemon::UnmountMode::kIfIdle);
      !done) {
    print(io.err, "odx: {}\n", done.error().message());
    return kFailed;
  }
  if (!running) {
    complain(io, path,
             fmt::format("unmounted, but whether the daemon is done cannot be told: {}",
                         running.error().message()));
    return kFailed;
  }
  if (const auto others = daemon::find_mounts_with(mount->device); !others.empty()) {
    print(io.out, "{}: unmounted; its store is still mounted on {}\n", path,
          others.back().mount_point);
    return kDone;
  }
  if (!*running) {
    return kDone;
  }
  std::string who;
  const bool gone = (*running)->wait_until_gone([&] {
    if (const auto other = daemon::find_mount_of(mount->source)) {
      who = "on " + other->mount_point;
    } else if (const auto pid = daemon::other_holder_of(mount->device)) {
      who = fmt::format("in a mount namespace of process {}", *pid);
    }
    return !who.empty();
  });
  if (!gone) {
    print(io.out, "{}: unmounted; its store is still mounted {}\n", path, who);
  } else if (!(*running)->closed_well()) {
    complain(io, path, "the daemon could not close the store; its log says why");
    return kFailed;
  }
  return kDone;
}

}  // namespace odx::cli
