#include "daemon.hpp"

#include <fcntl.h>
#include <fmt/core.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <climits>
#include <cstdlib>
#include <exception>
#include <initializer_list>
#include <string>

#include "base/log.hpp"
#include "mount.hpp"
#include "options.hpp"
#include "server.hpp"
#include "subtree.hpp"

namespace odx::daemon {

namespace {

constexpr int kFailed = 1;
constexpr int kBadUsage = 2;

int complain(std::string_view text, int status) {
  fmt::print(stderr, "odxfs: {}\n", text);
  return status;
}

Result<std::string> absolute(const std::string& path) {
  char resolved[PATH_MAX];
  if (::realpath(path.c_str(), resolved) == nullptr) {
    return fail(errno, path);
  }
  return std::string(resolved);
}

// A daemon that was killed leaves its mount behind, and that is in the way of a new one.
void detach_dead_mounts(const Options& options) {
  for (;;) {
    const std::optional<MountEntry> there = find_mount_named(options.mount_point);
    if (!there || there->source != options.store || there->owner != ::geteuid() ||
        !is_dead(*there) || !unmount_filesystem(there->mount_point, UnmountMode::kDetach)) {
      return;
    }
  }
}

Result<void> resolve_paths(Options& options) {
  options.store = ODX_TRY(absolute(options.store));
  detach_dead_mounts(options);
  options.mount_point = ODX_TRY(absolute(options.mount_point));
  struct stat place {};
  if (::stat(options.mount_point.c_str(), &place) != 0) {
    return fail(errno, options.mount_point);
  }
  if (!S_ISDIR(place.st_mode)) {
    return fail(ENOTDIR, options.mount_point);
  }
  // Once mounted, the store's own files could only be reached through the store.
  if ((options.store + '/')
          .starts_with(options.mount_point == "/" ? "/" : options.mount_point + '/')) {
    return fail(EINVAL, "the store must not be below the mount point");
  }
  return {};
}

void block_signals() {
  sigset_t signals;
  ::sigemptyset(&signals);
  for (const int number : {SIGTERM, SIGINT, SIGHUP, SIGPIPE}) {
    ::sigaddset(&signals, number);
  }
  ::pthread_sigmask(SIG_BLOCK, &signals, nullptr);
}

int serve_until_unmounted(Server& server) {
  const Result<void> closed = server.run();
  if (!closed) {
    log::error("closing the store: {}", closed.error().message());
    return kFailed;
  }
  return 0;
}

int run_in_foreground(Options options) {
  log::to_stderr("odxfs");
  Result<std::unique_ptr<Server>> server = Server::start(std::move(options));
  if (!server) {
    return complain(server.error().message(), kFailed);
  }
  return serve_until_unmounted(**server);
}

void point_to_null(std::initializer_list<int> descriptors) {
  const Fd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
  for (const int descriptor : descriptors) {
    ::dup2(null.get(), descriptor);
  }
}

// The child of run_in_background(): reports through `report` an empty text, or what went wrong.
int run_as_daemon(Options options, Fd report) {
  ::setsid();
  if (::chdir("/") != 0) {
    return kFailed;
  }
  log::to_syslog("odxfs");
  point_to_null({STDIN_FILENO});  // before the watchdog takes it
  Result<std::unique_ptr<Server>> server = Server::start(std::move(options));
  const std::string text = server ? std::string() : server.error().message();
  const char status = server ? '0' : '1';
  if (::write(report.get(), &status, 1) != 1 ||
      ::write(report.get(), text.data(), text.size()) < 0) {
    log::warn("nobody waits for the mount");
  }
  point_to_null({STDOUT_FILENO, STDERR_FILENO});
  report.reset();
  return server ? serve_until_unmounted(**server) : kFailed;
}

int run_in_background(Options options) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) {
    return complain(Error(errno, "pipe").message(), kFailed);
  }
  Fd reading(ends[0]);
  Fd writing(ends[1]);
  const pid_t child = ::fork();
  if (child < 0) {
    return complain(Error(errno, "fork").message(), kFailed);
  }
  if (child == 0) {
    reading.reset();
    return run_as_daemon(std::move(options), std::move(writing));
  }
  writing.reset();
  std::string report;
  char chunk[512];
  for (ssize_t n = 0; (n = ::read(reading.get(), chunk, sizeof chunk)) != 0;) {
    if (n > 0) {
      report.append(chunk, static_cast<std::size_t>(n));
    } else if (errno != EINTR) {
      break;
    }
  }
  if (report == "0") {
    return 0;
  }
  return complain(report.empty() ? "the daemon died" : report.substr(1), kFailed);
}

int run(int argc, char** argv) {
  Result<Options> options = parse_command_line(argc, argv);
  if (!options) {
    return complain(options.error().detail(), kBadUsage);
  }
  if (options->help) {
    fmt::print("{}", usage_text());
    return 0;
  }
  if (options->version) {
    fmt::print("odxfs {}\n", ODX_VERSION);
    return 0;
  }
  const Result<void> resolved = resolve_paths(*options);
  if (!resolved) {
    return complain(resolved.error().message(), kFailed);
  }
  if ((options->join || !options->subdir.empty()) && ::geteuid() != 0) {
    return complain("only root can use the options subdir and join", kFailed);
  }
  if (options->join) {
    const Result<bool> joined = join_mount(*options);
    if (!joined) {
      return complain(joined.error().message(), kFailed);
    }
    if (*joined) {
      return 0;
    }
  }
  block_signals();
  return options->foreground ? run_in_foreground(std::move(*options))
                             : run_in_background(std::move(*options));
}

}  // namespace

int odxfs_main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const std::exception& e) {
    return complain(e.what(), kFailed);
  }
}

}  // namespace odx::daemon
