// Operations, made from a seed, and what runs them on a store and on the model beside it.
#pragma once

#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "base/clock.hpp"
#include "image.hpp"
#include "model.hpp"

namespace odx::crash {

enum class OpKind {
  kCreate,
  kMkdir,
  kSymlink,
  kLink,
  kUnlink,
  kReap,
  kRmdir,
  kRename,
  kExchange,
  kWrite,
  kTruncate,
  kPunch,
  kCollapse,
  kInsert,
  kCopy,
  kClone,
  kWriteOrphan,
  kSetXattr,
  kRemoveXattr,
  kLargeXattr,
  kChmod,
  kOffloadRead,
  kOffloadReadSync,
  kOffloadWrite,
  kDropToken,
  kFsync,
  kSync,
  kCheckpoint,
  kReclaim,
  kCreateUnnamed,
  kLinkUnnamed,
};

// What the numbers mean depends on what there is when the operation runs, so any operation can be
// left out of a sequence and the rest still makes sense. What makes none is skipped.
struct Op {
  OpKind kind = OpKind::kSync;
  std::uint64_t a = 0;
  std::uint64_t b = 0;
  std::uint64_t c = 0;
  std::uint64_t d = 0;
};

std::vector<Op> make_ops(std::uint64_t seed, std::size_t count);
// Large attributes, each made durable: the journal goes round more than once.
std::vector<Op> churn_ops(std::uint64_t seed);
// Fills a new store: directories, a fragmented file with inner nodes, a clone of it, attributes.
std::vector<Op> base_ops();

OpenOptions open_options(const Clock& clock);
// Flushes and checkpoints by time and by size instead of on demand only. When they come is not
// decided by the seed; what must hold after a crash does not depend on it.
void use_timers(OpenOptions& options);
inline constexpr std::int64_t kStartNs = 1'700'000'000 * kNsPerSecond;

// What a folder's store must hold when somebody opens it.
struct State {
  Model model;
  std::map<std::string, KnownToken> known;
};

class Runner {
 public:
  Runner(Store& store, State state, Recorder* recorder)
      : store_(store), state_(std::move(state)), recorder_(recorder) {
    history.push_back(state_.model.describe());
  }

  // One operation; its number is history.size() - 1 afterwards. An error: the store refused what
  // the model allows.
  Result<void> run(const Op& op);

  // The state after each operation, before the first one first.
  std::vector<std::string> history;
  std::vector<std::string> done;   // what each operation was, for people
  std::uint64_t acknowledged = 0;  // the last operation known durable

  State& state() { return state_; }

 private:
  struct Named {
    std::uint64_t dir;
    std::string name;
    std::uint64_t ino;
  };
  Result<std::string> carry_out(const Op& op, std::uint64_t number);
  [[nodiscard]] std::vector<Named> named(bool directories, bool others) const;
  [[nodiscard]] std::vector<std::uint64_t> regular() const;
  [[nodiscard]] std::vector<std::uint64_t> directories() const;
  [[nodiscard]] std::vector<std::uint64_t> orphans() const;
  [[nodiscard]] bool is_below(std::uint64_t ino, std::uint64_t ancestor) const;
  void lose_link(std::uint64_t ino, std::uint64_t number);
  void acknowledge(std::uint64_t number);
  Result<std::string> names_op(const Op& op, std::uint64_t number);
  Result<std::string> data_op(const Op& op, std::uint64_t number);
  Result<std::string> token_op(const Op& op, std::uint64_t number);
  Node& node(std::uint64_t ino) { return state_.model.nodes.at(ino); }

  Store& store_;
  State state_;
  Recorder* recorder_;
};

// Writes a token into a new file of the store and answers with what the file then holds.
Result<std::string> redeem(Store& store, const KnownToken& known, const std::string& name);

}  // namespace odx::crash
