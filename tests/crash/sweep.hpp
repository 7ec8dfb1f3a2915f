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

  // Fails the first, second, third, ... call that changes a file while the workload runs, each time
  // on a new store, until a run passes untouched (or `limit`).
  std::optional<Violation> failing_calls(std::uint64_t seed, int error, std::uint64_t limit);

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
    bool touched = false;    // a call was failed on purpose
  };
  void make_bases();
  Base make_base(const std::string& name, std::size_t extra_syncs, bool fill, bool close);
  [[nodiscard]] const Base& base_of(std::uint64_t seed) const;
  Recording record(const Base& base, const std::vector<Op>& ops, std::uint64_t fail_at, int error);
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
