// crash_sweep: power cuts for a whole store, from its file operations down to LMDB's pages.
//
//   crash_sweep [--seed N] [--points N] [--soak SECONDS] [--jobs N] [--workload N]
//               [--lie segments|journal|base-data|base-meta] [--faults] [--fail-allocations]
//               [--step N]
//
// Exits 0 if nothing was found (with --lie: if something was). --workload runs one workload alone.
// --faults strikes the first, second, third, ... call instead, with one kind of fault for each
// workload in turn; --fail-allocations fails every Nth allocation (a prime near 100 unless --step
// says otherwise; --step 1 --workload N: every single one).
// ODX_QUICK=1 in the environment divides the points by 20.
#include <fmt/core.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "base/log.hpp"
#include "memory.hpp"
#include "sweep.hpp"

namespace odx::crash {

namespace {

using SteadyClock = std::chrono::steady_clock;

struct Settings {
  std::uint64_t seed = 1;
  std::uint64_t points = 10'500;
  double soak = 0;
  unsigned jobs = std::clamp(std::thread::hardware_concurrency(), 1U, 2U);
  std::uint64_t only = 0;
  Lie lie = Lie::kNone;
  bool faults = false;
  bool allocations = false;
  std::uint64_t step = 97;
};

Settings parse(int argc, char** argv) {
  Settings settings;
  for (int i = 1; i < argc; ++i) {
    const std::string name = argv[i];
    if (name == "--faults") {
      settings.faults = true;
      continue;
    }
    if (name == "--fail-allocations") {
      settings.allocations = true;
      continue;
    }
    if (++i == argc) {
      throw std::runtime_error(name + " needs a value, or is unknown");
    }
    const std::string value = argv[i];
    if (name == "--seed") {
      settings.seed = std::stoull(value);
    } else if (name == "--points") {
      settings.points = std::stoull(value);
    } else if (name == "--soak") {
      settings.soak = std::stod(value);
    } else if (name == "--jobs") {
      settings.jobs = std::max(1, std::stoi(value));
    } else if (name == "--step") {
      settings.step = std::max(1ULL, std::stoull(value));
    } else if (name == "--workload") {
      settings.only = std::stoull(value);
    } else if (name == "--lie") {
      settings.lie = value == "segments"    ? Lie::kSegments
                     : value == "journal"   ? Lie::kJournal
                     : value == "base-data" ? Lie::kBaseData
                     : value == "base-meta" ? Lie::kBaseMeta
                                            : throw std::runtime_error("unknown lie " + value);
    } else {
      throw std::runtime_error("unknown option " + name);
    }
  }
  if (std::getenv("ODX_QUICK") != nullptr && settings.lie == Lie::kNone) {
    settings.points /= 20;
  }
  return settings;
}

// In memory if there is room: a sweep writes much and waits for no disk.
std::string working_place() {
  struct statvfs memory {};
  const char* base = std::getenv("TMPDIR");
  std::string place = base != nullptr ? base : "/tmp";
  if (::statvfs("/dev/shm", &memory) == 0 && memory.f_bavail * memory.f_frsize >= (512ULL << 20) &&
      ::access("/dev/shm", W_OK) == 0) {
    place = "/dev/shm";
  }
  place += "/odx-crash-XXXXXX";
  if (::mkdtemp(place.data()) == nullptr) {
    throw std::runtime_error("mkdtemp " + place);
  }
  return place;
}

class Place {
 public:
  Place() : path(working_place()) {}
  ~Place() {
    std::error_code ignored;
    std::filesystem::remove_all(path, ignored);
  }
  Place(const Place&) = delete;
  Place& operator=(const Place&) = delete;
  const std::string path;
};

void report(Sweep& sweep, const Settings& settings, std::uint64_t workload,
            const Violation& violation) {
  fmt::print("VIOLATION in workload {} (again: crash_sweep --workload {})\n  {}\n  {}\n", workload,
             workload, violation.where, violation.what);
  for (std::size_t i = 0; i < violation.done.size(); ++i) {
    fmt::print("  {:3} {}\n", i + 1, violation.done[i]);
  }
  std::fflush(stdout);
  if (settings.lie == Lie::kNone && !settings.faults && !settings.allocations) {
    const std::vector<Op> fewer = sweep.minimise(workload, Sweep::ops_of(workload));
    if (const auto still = sweep.workload(workload, fewer)) {
      fmt::print("the least that shows it ({} operations):\n  {}\n  {}\n", fewer.size(),
                 still->where, still->what);
      for (std::size_t i = 0; i < still->done.size(); ++i) {
        fmt::print("  {:3} {}\n", i + 1, still->done[i]);
      }
    }
  }
  std::fflush(stdout);
}

// Kind of fault after kind of fault.
std::optional<Violation> faults_of(Sweep& sweep, std::uint64_t workload) {
  using Kind = Fault::Kind;
  switch (workload % 10) {
    case 0:
      return sweep.faults(workload, Kind::kFail, EIO);
    case 1:
      return sweep.faults(workload, Kind::kFail, ENOSPC);
    case 2:
      return sweep.faults(workload, Kind::kFailRead, EIO);
    case 3:
      return sweep.faults(workload, Kind::kShort, 0);
    case 4:
      return sweep.faults(workload, Kind::kShortRead, 0);
    case 5:
      return sweep.faults(workload, Kind::kFlip, 0);
    case 6:
      return sweep.faults(workload, Kind::kMisdirect, 0);
    case 7:
      return sweep.faults(workload, Kind::kDelay, 0);
    case 8:
      return sweep.rot(workload);
    default:
      return sweep.full_host();
  }
}

std::optional<Violation> one_workload(Sweep& sweep, const Settings& settings,
                                      std::uint64_t workload) {
  if (settings.faults) {
    return faults_of(sweep, workload);
  }
  return settings.allocations ? sweep.failing_allocations(workload, settings.step)
                              : sweep.workload(workload);
}

// The workloads seed + job, seed + job + jobs, ...
int work(const Settings& settings, unsigned job) {
  const auto began = SteadyClock::now();
  const auto seconds = [&] {
    return std::chrono::duration<double>(SteadyClock::now() - began).count();
  };
  const Place place;
  Sweep sweep(place.path, settings.lie);
  std::uint64_t workload = settings.only != 0 ? settings.only : settings.seed + job;
  int found = 0;
  for (; found == 0; workload += settings.jobs) {
    if (settings.soak > 0 ? seconds() >= settings.soak
                          : sweep.points() >= settings.points / settings.jobs) {
      break;
    }
    auto violation = one_workload(sweep, settings, workload);
    if (violation) {
      found = 1;
      report(sweep, settings, workload, *violation);
    }
    if (settings.only != 0) {
      break;
    }
  }
  fmt::print("job {}: {} crash points of {} runs in {:.1f} s, {:.0f} a second\n", job,
             sweep.points(), sweep.runs(), seconds(),
             static_cast<double>(sweep.points()) / seconds());
  std::fflush(stdout);
  return found;
}

int run(const Settings& settings) {
  use_seeded_random();
  if (settings.jobs == 1 || settings.only != 0) {
    return work(settings, 0);
  }
  std::vector<pid_t> children;
  for (unsigned job = 0; job < settings.jobs; ++job) {
    const pid_t child = ::fork();
    if (child == 0) {
      int result = 2;
      try {
        result = work(settings, job);
      } catch (const std::exception& error) {
        fmt::print("crash_sweep: {}\n", error.what());
      }
      std::fflush(stdout);
      std::_Exit(result);
    }
    if (child < 0) {
      throw std::runtime_error("fork");
    }
    children.push_back(child);
  }
  int worst = 0;
  for (const pid_t child : children) {
    int status = 0;
    ::waitpid(child, &status, 0);
    worst = std::max(worst, WIFEXITED(status) ? WEXITSTATUS(status) : 2);
  }
  return worst;
}

}  // namespace

}  // namespace odx::crash

int main(int argc, char** argv) {
  try {
    odx::log::to_stderr("crash_sweep");
    const auto settings = odx::crash::parse(argc, argv);
    const odx::crash::Sheltered this_thread;
    fmt::print("crash_sweep --seed {} --jobs {}\n", settings.seed, settings.jobs);
    std::fflush(stdout);
    const int found = odx::crash::run(settings);
    if (settings.lie != odx::crash::Lie::kNone && found != 2) {
      fmt::print("{}\n", found == 1 ? "the lie was found" : "THE LIE WAS NOT FOUND");
      return found == 1 ? 0 : 1;
    }
    return found;
  } catch (const std::exception& error) {
    fmt::print(stderr, "crash_sweep: {}\n", error.what());
    return 2;
  }
}
