// The daemon does the work; this asks how far it is. The job is the daemon's, so it has to be told
// when nobody waits for it any more.
#include "online_check.hpp"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <thread>

#include "../daemon/mount.hpp"
#include "command.hpp"
#include "odx/odx.h"

namespace odx::cli {

namespace {

using namespace std::chrono_literals;

volatile sig_atomic_t g_interrupted = 0;

// While one lives, signals that ask for the end are only taken down.
class Interrupts {
 public:
  Interrupts() {
    g_interrupted = 0;
    struct sigaction action {};
    action.sa_handler = [](int) { g_interrupted = 1; };
    for (std::size_t i = 0; i < kSignals.size(); ++i) {
      ::sigaction(kSignals[i], &action, &before_[i]);
    }
  }
  ~Interrupts() {
    for (std::size_t i = 0; i < kSignals.size(); ++i) {
      ::sigaction(kSignals[i], &before_[i], nullptr);
    }
  }
  Interrupts(const Interrupts&) = delete;
  Interrupts& operator=(const Interrupts&) = delete;

 private:
  static constexpr std::array kSignals{SIGINT, SIGTERM, SIGHUP};
  std::array<struct sigaction, kSignals.size()> before_{};
};

std::optional<std::string> real_path(const std::string& path) {
  const std::unique_ptr<char, decltype(&std::free)> real(::realpath(path.c_str(), nullptr),
                                                         &std::free);
  return real != nullptr ? std::optional<std::string>(real.get()) : std::nullopt;
}

Result<void> ask(int mount, odx_check& call) {
  const int error = odx_check_control(mount, &call);
  if (error == -EPERM) {
    return fail(EPERM, "only root and the owner of the mount may check it");
  }
  return error == 0 ? Result<void>() : fail(-error);
}

Result<void> start(int mount, std::uint32_t flags, bool cancel_other, odx_check& call) {
  for (;;) {
    call = {};
    call.operation = ODX_CHECK_START;
    call.flags = flags;
    const Result<void> started = ask(mount, call);
    if (started || started.error().errno_value() != EBUSY) {
      return started;
    }
    if (!cancel_other) {
      return fail(EBUSY, "another check is running (--cancel ends it)");
    }
    if (g_interrupted != 0) {
      return fail(ECANCELED, "cancelled");
    }
    call = {};
    call.operation = ODX_CHECK_CANCEL;
    const Result<void> cancelled = ask(mount, call);
    if (!cancelled && cancelled.error().errno_value() != ENOENT) {
      return cancelled;
    }
    std::this_thread::sleep_for(10ms);
  }
}

// The whole report, as lines.
Result<std::vector<std::string>> fetch_lines(int mount, std::uint64_t job) {
  std::string text;
  odx_check call{};
  do {
    call = {};
    call.operation = ODX_CHECK_STATUS;
    call.text_from = text.size();
    ODX_TRY(ask(mount, call));
    if (call.job != job) {
      return fail(ECANCELED, "another check has taken its place");
    }
    text.append(call.text, call.text_bytes);
  } while (text.size() < call.text_total && call.text_bytes != 0);
  std::vector<std::string> lines;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    lines.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  return lines;
}

CheckReport report_of(const odx_check& call) {
  CheckReport report;
  report.inodes = call.inodes;
  report.directories = call.directories;
  report.entries = call.entries;
  report.xattrs = call.xattrs;
  report.orphans = call.orphans;
  report.tokens = call.tokens;
  report.nodes = call.nodes;
  report.queued = call.queued;
  report.extents = call.extents;
  report.blocks = call.blocks;
  report.used_blocks = call.used_blocks;
  report.data_bytes = call.data_bytes;
  report.verified_blocks = call.verified_blocks;
  report.problem_count = call.problems;
  return report;
}

}  // namespace

std::optional<Fd> open_if_mounted(const std::string& path) {
  const std::optional<std::string> real = real_path(path);
  const bool is_mount_point = real && daemon::find_mount_at(*real);
  const bool is_store = ::access((path + "/SUPER.0").c_str(), F_OK) == 0 ||
                        ::access((path + "/SUPER.1").c_str(), F_OK) == 0;
  if (!is_mount_point && is_store) {
    return std::nullopt;
  }
  Result<Fd> file = open_file(path, O_RDONLY | O_NONBLOCK);
  struct odx_stat stat;
  if (!file || odx_statistics(file->get(), &stat) != 0) {
    return std::nullopt;
  }
  return std::move(*file);
}

std::optional<std::string> mount_point_of(const std::string& path) {
  const std::optional<std::string> real = real_path(path);
  const auto entry = real ? daemon::find_mount_of(*real) : std::nullopt;
  return entry ? std::optional<std::string>(entry->mount_point) : std::nullopt;
}

Result<CheckReport> check_mounted(int mount, const CheckOptions& options, bool cancel_other) {
  const Interrupts interrupts;
  odx_check call{};
  ODX_TRY(start(mount, options.data ? ODX_CHECK_DATA : 0, cancel_other, call));
  const std::uint64_t job = call.job;
  bool cancelled = false;
  for (auto pause = 1ms; call.job == job && call.state == ODX_CHECK_RUNNING;
       pause = std::min(pause * 2, std::chrono::milliseconds(100))) {
    std::this_thread::sleep_for(pause);
    call = {};
    call.operation = ODX_CHECK_STATUS;
    if (g_interrupted != 0 && !std::exchange(cancelled, true)) {
      call.operation = ODX_CHECK_CANCEL;
    }
    const Result<void> asked = ask(mount, call);
    if (!asked && asked.error().errno_value() != ENOENT) {
      return std::unexpected(asked.error());
    }
    if (!asked) {  // it was over before the cancellation came
      call = {};
      ODX_TRY(ask(mount, call));
    }
    if (options.progress && call.phase[0] != '\0') {
      options.progress({call.phase, ::strnlen(call.phase, sizeof call.phase)}, call.phase_done,
                       call.phase_total);
    }
  }
  if (call.job != job) {
    return fail(ECANCELED, "another check has taken its place");
  }
  if (call.state == ODX_CHECK_CANCELLED) {
    return fail(ECANCELED, "cancelled");
  }
  std::vector<std::string> lines = ODX_TRY(fetch_lines(mount, job));
  if (call.state == ODX_CHECK_FAILED) {
    return fail(call.error, lines.empty() ? std::string() : lines.front());
  }
  CheckReport report = report_of(call);
  report.problems = std::move(lines);
  return report;
}

}  // namespace odx::cli
