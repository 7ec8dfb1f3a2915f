// Workloads, crashes at every sync and between, and what must hold afterwards.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "workload.hpp"

namespace odx::crash {

struct Violation {
  std::string what;
  std::string where;              // the crash point
  std::vector<std::string> done;  // the workload
};

// How a workload runs.
struct Plan {
  Fault fault;
  std::uint64_t allocation = 0;  // the one that fails; 0: none
  bool timers = false;

  // What it does may make data unreadable.
  [[nodiscard]] bool damages() const {
    return fault.kind == Fault::Kind::kFlip || fault.kind == Fault::Kind::kMisdirect;
  }
};

// A store to begin with, and what it holds.
struct Base {
  std::string name;
  Medium medium;
  State state;
};

// Owns two folders below `root`: one that workloads run in, one for what crashes leave.
class Sweep {
 public:
  Sweep(const std::string& root, Lie lie);

  // Every crash point of the workload of a seed, until the first violation.
  std::optional<Violation> workload(std::uint64_t seed);
  // The same workload with only these of its operations.
  std::optional<Violation> workload(std::uint64_t seed, const std::vector<Op>& ops);
  static std::vector<Op> ops_of(std::uint64_t seed);
  // Leaves out what is not needed for a violation.
  std::vector<Op> minimise(std::uint64_t seed, std::vector<Op> ops);

  // The first, second, third, ... call that the kind of fault can befall is struck while the
  // workload runs, each time on a new store, until a run passes untouched. (faults.cpp)
  std::optional<Violation> faults(std::uint64_t seed, Fault::Kind kind, int error);
  // The same with allocations; `step`: every so many.
  std::optional<Violation> failing_allocations(std::uint64_t seed, std::uint64_t step);
  // Bits of used blocks change on the disk.
  std::optional<Violation> rot(std::uint64_t seed);
  // The host has no room when a store is first changed after it was closed, and then it has.
  std::optional<Violation> full_host();

  [[nodiscard]] std::uint64_t points() const { return points_; }
  [[nodiscard]] std::uint64_t runs() const { return runs_; }

 private:
  struct Recording {
    std::vector<Entry> entries;
    std::vector<std::string> history;
    std::vector<std::string> done;
    State end;
    std::uint64_t acknowledged = 0;
    std::string error;       // what the operation that ended it answered with
    std::string wrong;       // what must not be, without any crash
    bool failed = false;     // the store takes nothing any more
    bool lost_word = false;  // and yet said that all is durable
    bool struck = false;     // the fault has happened
    int error_number = 0;
    std::uint64_t errors = 0;
    OpKind last_failed = OpKind::kSync;
    std::uint64_t refused = 0;  // pieces of files that the live store did not give
    std::uint64_t allocations = 0;
    std::string misdirected;
  };
  void make_bases();
  Base make_base(const std::string& name, std::size_t extra_syncs, bool fill, bool close);
  [[nodiscard]] const Base& base_of(std::uint64_t seed) const;
  Recording record(const Base& base, const std::vector<Op>& ops, const Plan& plan);
  void run_all(Store& store, Runner& runner, Recorder& recorder, const std::vector<Op>& ops,
               const Plan& plan, Recording& recording);
  void judge_live(Store& store, Recorder& recorder, const Plan& plan, Recording& recording);
  // faults.cpp: what is wrong with a run; nothing to look at further if it was not struck.
  static std::string judge_run(const Recording& recording, const Plan& plan);
  std::optional<Violation> judge_images(const Base& base, const Recording& recording,
                                        const Plan& plan, const std::string& where);
  std::string judge_damage(const Recording& recording);
  // What is wrong with the folder's store after a crash that must leave one of the states
  // [first, last] of the recording; empty if nothing is.
  std::string verify(const Recording& recording, std::uint64_t first, std::uint64_t last,
                     std::uint64_t seed);
  std::string verify_open(Store& store, const Recording& recording, std::uint64_t first,
                          std::uint64_t last, bool at_length);
  // Every crash point of a recording that began with `disk`, whose store is then in one of the
  // states [first, last].
  std::optional<Violation> crashes(std::uint64_t seed, const std::string& name, PowerCut disk,
                                   const Recording& recording, std::uint64_t first,
                                   std::uint64_t last, bool again);
  // Crashes while a store recovers from the crash that left `start`, and while it is closed then.
  // `disk`: what of it is durable.
  std::optional<Violation> crashes_of_recovery(std::uint64_t seed, const std::string& name,
                                               const Medium& start, const PowerCut& disk,
                                               const Recording& recording, std::uint64_t first,
                                               std::uint64_t last);

  std::string root_;
  Lie lie_;
  ManualClock clock_{kStartNs};
  std::vector<Base> bases_;
  std::optional<Folder> image_;
  std::uint64_t points_ = 0;
  std::uint64_t runs_ = 0;
};

// Random numbers of the whole program, tokens' secrets included, from a seed: before the first
// store.
void use_seeded_random();

}  // namespace odx::crash
