#include "store/space/space_map.hpp"

#include <rapidcheck.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <catch2/catch.hpp>
#include <csignal>
#include <functional>
#include <map>
#include <ostream>
#include <set>
#include <thread>
#include <tuple>

namespace odx {

std::ostream& operator<<(std::ostream& out, const BlockRun& run) {
  return out << run.first.value() << "+" << run.count;
}

namespace {

using Runs = std::vector<BlockRun>;

BlockRun run_of(std::uint64_t first, std::uint64_t count) { return {BlockNo(first), count}; }

std::uint64_t sum_of(const Runs& runs) {
  std::uint64_t sum = 0;
  for (const BlockRun& run : runs) {
    sum += run.count;
  }
  return sum;
}

Runs allocate(SpaceMap& map, std::uint64_t count, std::uint64_t keep_free = 0) {
  Runs runs;
  const Result<void> outcome = map.allocate(count, keep_free, runs);
  REQUIRE(outcome);
  REQUIRE(sum_of(runs) == count);
  return runs;
}

bool ascending_and_apart(const Runs& runs) {
  return std::adjacent_find(runs.begin(), runs.end(), [](const BlockRun& a, const BlockRun& b) {
           return b.first <= a.end();
         }) == runs.end();
}

// Whether `action` stops the process by a broken invariant.
bool aborts(const std::function<void()>& action) {
  const pid_t child = ::fork();
  if (child == 0) {
    const rlimit no_core{0, 0};
    ::setrlimit(RLIMIT_CORE, &no_core);
    std::signal(SIGABRT, SIG_DFL);
    ::close(STDERR_FILENO);
    action();
    ::_exit(0);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
}

void use_every_second_block(SpaceMap& map, std::uint64_t from, std::uint64_t to) {
  for (std::uint64_t block = from; block < to; block += 2) {
    REQUIRE(map.mark_used(run_of(block, 1)));
  }
}

// What a SpaceMap should be, block by block.
class Model {
 public:
  enum class State { kFree, kUsed, kPending };

  void add_segment(std::uint64_t blocks) {
    sizes_.push_back(blocks);
    states_.resize(states_.size() + blocks, State::kFree);
    counts_[static_cast<std::size_t>(State::kFree)] += blocks;
  }
  [[nodiscard]] std::uint64_t total() const { return states_.size(); }
  [[nodiscard]] std::uint64_t count(State state) const {
    return counts_[static_cast<std::size_t>(state)];
  }
  [[nodiscard]] State at(std::uint64_t block) const { return states_[block]; }
  [[nodiscard]] const std::vector<std::uint64_t>& sizes() const { return sizes_; }

  void change(const Runs& runs, State from, State to) {
    for (const BlockRun& run : runs) {
      for (BlockNo block = run.first; block < run.end(); block += 1) {
        RC_ASSERT(states_[block.value()] == from);
        set(block, to);
      }
    }
  }
  void mark_used(const BlockRun& run) {
    for (BlockNo block = run.first; block < run.end(); block += 1) {
      if (states_[block.value()] == State::kFree) {
        set(block, State::kUsed);
      }
    }
  }
  // The runs of `state` that lie in [from, from + count), each at most `longest` long.
  [[nodiscard]] Runs runs(State state, std::uint64_t from, std::uint64_t count,
                          std::uint64_t longest = UINT64_MAX) const {
    Runs found;
    for (std::uint64_t block = from; block < from + count; ++block) {
      if (states_[block] != state) {
        continue;
      }
      if (!found.empty() && found.back().end() == BlockNo(block) && found.back().count < longest) {
        ++found.back().count;
      } else {
        found.push_back(run_of(block, 1));
      }
    }
    return found;
  }

 private:
  void set(BlockNo block, State state) {
    --counts_[static_cast<std::size_t>(states_[block.value()])];
    ++counts_[static_cast<std::size_t>(state)];
    states_[block.value()] = state;
  }

  std::vector<std::uint64_t> sizes_;
  std::vector<State> states_;
  std::array<std::uint64_t, 3> counts_{};
};

using State = Model::State;
using Step = std::tuple<std::uint8_t, std::uint32_t, std::uint32_t>;

// Drives a map and its model with the same steps, comparing all the way.
class Pair {
 public:
  void add_segment(std::uint64_t blocks) {
    map_->add_segment(blocks);
    model_.add_segment(blocks);
  }

  void step(const Step& step) {
    const auto [what, a, b] = step;
    switch (what % 10) {
      case 0:
      case 1:
      case 2:
        allocate(a % 4 == 0 ? b % (model_.total() + 10) : b % 40, a % 8 == 1 ? a % 500 : 0);
        break;
      case 3:
        release(a, b);
        break;
      case 4:
      case 5:
        defer(a, b);
        break;
      case 6:
        settle(a);
        break;
      case 7:
        mark_used(a, b);
        break;
      case 8:
        take_free(a, b);
        break;
      default:
        if (a % 4 == 0) {
          save_and_load();
        } else if (model_.total() < 40'000) {
          add_segment(1 + b % 5000);
        }
    }
    compare_stats();
  }

  void compare_blocks() const {
    for (std::uint64_t block = 0; block < model_.total(); ++block) {
      RC_ASSERT(map_->is_free(BlockNo(block)) == (model_.at(block) == State::kFree));
    }
    RC_ASSERT(!map_->is_free(BlockNo(model_.total())));
  }

 private:
  void allocate(std::uint64_t count, std::uint64_t keep) {
    const std::uint64_t free = model_.count(State::kFree);
    const BlockRun before = run_of(1'000'000'000, 7);
    Runs runs{before};
    const Result<void> outcome = map_->allocate(count, keep, runs);
    RC_ASSERT(runs.front() == before);
    runs.erase(runs.begin());
    RC_ASSERT(outcome.has_value() == (keep + count <= free));
    if (!outcome) {
      RC_ASSERT(outcome.error().errno_value() == ENOSPC);
      RC_ASSERT(runs.empty());
      return;
    }
    RC_ASSERT(sum_of(runs) == count);
    RC_ASSERT(ascending_and_apart(runs));
    model_.change(runs, State::kFree, State::kUsed);
  }

  Runs used_somewhere(std::uint32_t a, std::uint32_t b) const {
    const std::uint64_t from = a % model_.total();
    return model_.runs(State::kUsed, from, std::min<std::uint64_t>(b % 600, model_.total() - from),
                       1 + b % 70);
  }

  void release(std::uint32_t a, std::uint32_t b) {
    const Runs runs = used_somewhere(a, b);
    map_->release(runs);
    model_.change(runs, State::kUsed, State::kFree);
  }

  void defer(std::uint32_t a, std::uint32_t b) {
    const Runs runs = used_somewhere(a, b);
    seq_ += a % 3;
    map_->defer(seq_, runs);
    model_.change(runs, State::kUsed, State::kPending);
    Runs& waiting = deferred_[seq_];
    waiting.insert(waiting.end(), runs.begin(), runs.end());
  }

  void settle(std::uint32_t a) {
    const TxnSeq upto(a % (seq_.value() + 2));
    std::set<std::uint64_t> expected;
    while (!deferred_.empty() && deferred_.begin()->first <= upto) {
      for (const BlockRun& run : deferred_.begin()->second) {
        for (std::uint64_t i = 0; i < run.count; ++i) {
          expected.insert(run.first.value() + i);
        }
      }
      deferred_.erase(deferred_.begin());
    }
    const Runs runs = map_->settle(upto);
    RC_ASSERT(ascending_and_apart(runs));
    RC_ASSERT(sum_of(runs) == expected.size());
    for (const BlockRun& run : runs) {
      for (std::uint64_t i = 0; i < run.count; ++i) {
        RC_ASSERT(expected.contains(run.first.value() + i));
      }
    }
    model_.change(runs, State::kPending, State::kFree);
  }

  void mark_used(std::uint32_t a, std::uint32_t b) {
    const std::uint64_t from = a % model_.total();
    const BlockRun run = run_of(from, std::min<std::uint64_t>(b % 300, model_.total() - from));
    RC_ASSERT(map_->mark_used(run).has_value());
    model_.mark_used(run);
  }

  void take_free(std::uint32_t a, std::uint32_t b) {
    const std::uint64_t from = a % model_.total();
    const std::uint64_t count = std::min<std::uint64_t>(b % 300, model_.total() - from);
    const Runs runs = map_->take_free(std::array{run_of(from, count)});
    RC_ASSERT(runs == model_.runs(State::kFree, from, count));
    model_.change(runs, State::kFree, State::kUsed);
  }

  // Saved now, loaded by a later mount: to that one what is pending is used.
  void save_and_load() {
    auto loaded = std::make_unique<SpaceMap>();
    RC_ASSERT(map_->segments() == model_.sizes().size());
    for (std::size_t i = 0; i < model_.sizes().size(); ++i) {
      loaded->add_segment(model_.sizes()[i]);
      RC_ASSERT(loaded->load_segment(i, map_->save_segment(i)).has_value());
    }
    map_ = std::move(loaded);
    model_.change(model_.runs(State::kPending, 0, model_.total()), State::kPending, State::kUsed);
    deferred_.clear();
    compare_blocks();
  }

  void compare_stats() const {
    const SpaceStats stats = map_->stats();
    RC_ASSERT(stats.total_blocks == model_.total());
    RC_ASSERT(stats.free_blocks == model_.count(State::kFree));
    RC_ASSERT(stats.pending_blocks == model_.count(State::kPending));
  }

  std::unique_ptr<SpaceMap> map_ = std::make_unique<SpaceMap>();
  Model model_;
  TxnSeq seq_{1};
  std::map<TxnSeq, Runs> deferred_;
};

TEST_CASE("space map agrees with a block-by-block model") {
  CHECK(rc::check("random steps", [] {
    Pair pair;
    const auto sizes =
        *rc::gen::container<std::vector<std::uint64_t>>(rc::gen::inRange<std::uint64_t>(1, 5000));
    pair.add_segment(*rc::gen::inRange<std::uint64_t>(1, 5000));
    for (std::size_t i = 0; i < std::min<std::size_t>(sizes.size(), 3); ++i) {
      pair.add_segment(sizes[i]);
    }
    const auto steps =
        *rc::gen::resize(400, rc::gen::container<std::vector<Step>>(rc::gen::tuple(
                                  rc::gen::arbitrary<std::uint8_t>(),
                                  rc::gen::resize(1000, rc::gen::arbitrary<std::uint32_t>()),
                                  rc::gen::resize(1000, rc::gen::arbitrary<std::uint32_t>()))));
    for (const Step& step : steps) {
      pair.step(step);
    }
    pair.compare_blocks();
  }));
}

TEST_CASE("consecutive allocations are neighbours") {
  SpaceMap map;
  map.add_segment(10'000);
  CHECK(allocate(map, 100) == Runs{run_of(0, 100)});
  CHECK(allocate(map, 1) == Runs{run_of(100, 1)});
  CHECK(allocate(map, 5000) == Runs{run_of(101, 5000)});
  map.release(std::array{run_of(0, 100)});
  CHECK(allocate(map, 10) == Runs{run_of(5101, 10)});
}

TEST_CASE("nothing is asked for, nothing is given") {
  SpaceMap map;
  CHECK(allocate(map, 0).empty());
  map.add_segment(1);
  CHECK(allocate(map, 0).empty());
  map.defer(TxnSeq(1), std::array{run_of(0, 0)});
  CHECK(map.settle(TxnSeq(1)).empty());
}

TEST_CASE("a search wraps round to freed space") {
  SpaceMap map;
  map.add_segment(8192);
  allocate(map, 8192);
  map.release(std::array{run_of(4000, 300)});
  CHECK(allocate(map, 300) == Runs{run_of(4000, 300)});
  map.release(std::array{run_of(4299, 1)});
  map.release(std::array{run_of(0, 2)});
  CHECK(allocate(map, 2) == Runs{run_of(0, 2)});
  CHECK(allocate(map, 1) == Runs{run_of(4299, 1)});
}

TEST_CASE("one run is preferred to the nearest pieces") {
  SpaceMap map;
  map.add_segment(20'000);
  REQUIRE(map.mark_used(run_of(0, 20'000)));
  for (std::uint64_t i = 0; i < 30; ++i) {
    map.release(std::array{run_of(i * 10, 5)});
  }
  map.release(std::array{run_of(15'000, 64)});
  CHECK(allocate(map, 64) == Runs{run_of(15'000, 64)});
}

TEST_CASE("without one run, the longest pieces are taken") {
  SpaceMap map;
  map.add_segment(20'000);
  REQUIRE(map.mark_used(run_of(0, 20'000)));
  for (std::uint64_t i = 0; i < 20; ++i) {
    map.release(std::array{run_of(i * 10, 2)});
  }
  map.release(std::array{run_of(700, 40), run_of(900, 50)});
  CHECK(allocate(map, 80) == Runs{run_of(700, 30), run_of(900, 50)});
}

TEST_CASE("the emptiest segment serves what the current one cannot") {
  SpaceMap map;
  map.add_segment(1000);
  map.add_segment(1000);
  map.add_segment(1000);
  REQUIRE(map.mark_used(run_of(1000, 500)));
  CHECK(allocate(map, 900) == Runs{run_of(0, 900)});
  CHECK(allocate(map, 200) == Runs{run_of(2000, 200)});
  CHECK(allocate(map, 200) == Runs{run_of(2200, 200)});
  // The current one is too fragmented, although it has room enough.
  use_every_second_block(map, 2400, 3000);
  CHECK(allocate(map, 100) == Runs{run_of(1500, 100)});
}

TEST_CASE("an allocation may take everything, over all segments") {
  SpaceMap map;
  for (int i = 0; i < 5; ++i) {
    map.add_segment(9000);
  }
  use_every_second_block(map, 0, 45'000);
  Runs runs;
  CHECK(map.allocate(22'501, 0, runs).error().errno_value() == ENOSPC);
  CHECK(map.allocate(22'500, 1, runs).error().errno_value() == ENOSPC);
  CHECK(runs.empty());
  CHECK(map.stats().free_blocks == 22'500);
  CHECK(allocate(map, 22'499, 1).size() == 22'499);
  CHECK(allocate(map, 1).size() == 1);
  CHECK(map.stats().free_blocks == 0);
  CHECK(map.allocate(1, 0, runs).error().errno_value() == ENOSPC);
}

TEST_CASE("runs may cross segments") {
  SpaceMap map;
  map.add_segment(100);
  map.add_segment(70);
  REQUIRE(map.mark_used(run_of(90, 20)));
  CHECK(map.stats().free_blocks == 150);
  map.release(std::array{run_of(95, 10)});
  CHECK(map.stats().free_blocks == 160);
  map.defer(TxnSeq(1), std::array{run_of(90, 5), run_of(105, 5)});
  CHECK(map.stats().pending_blocks == 10);
  CHECK(map.settle(TxnSeq(1)) == Runs{run_of(90, 5), run_of(105, 5)});
  CHECK(allocate(map, 170) == Runs{run_of(0, 170)});
}

TEST_CASE("deferred blocks come back by transaction") {
  SpaceMap map;
  map.add_segment(100);
  allocate(map, 100);
  map.defer(TxnSeq(5), std::array{run_of(10, 10)});
  map.defer(TxnSeq(5), std::array{run_of(20, 5)});
  map.defer(TxnSeq(7), std::array{run_of(0, 10)});
  CHECK(map.settle(TxnSeq(4)).empty());
  CHECK_FALSE(map.is_free(BlockNo(12)));
  CHECK(map.settle(TxnSeq(6)) == Runs{run_of(10, 15)});
  CHECK(map.is_free(BlockNo(12)));
  CHECK_FALSE(map.is_free(BlockNo(0)));
  CHECK(map.stats().pending_blocks == 10);
  CHECK(map.settle(TxnSeq(7)) == Runs{run_of(0, 10)});
  CHECK(map.stats().free_blocks == 25);
}

TEST_CASE("blocks taken for discarding are out of reach") {
  SpaceMap map;
  map.add_segment(64);
  allocate(map, 64);
  map.defer(TxnSeq(1), std::array{run_of(0, 32)});
  const Runs freed = map.settle(TxnSeq(1));
  allocate(map, 8);
  const Runs taken = map.take_free(freed);
  CHECK(taken == Runs{run_of(8, 24)});
  Runs runs;
  CHECK(map.allocate(1, 0, runs).error().errno_value() == ENOSPC);
  map.release(taken);
  CHECK(map.stats().free_blocks == 24);
}

TEST_CASE("freeing twice stops the process") {
  SpaceMap map;
  map.add_segment(1000);
  allocate(map, 300);
  map.release(std::array{run_of(100, 10)});
  map.defer(TxnSeq(2), std::array{run_of(200, 10)});
  const auto release = [&](BlockRun run) { return [&map, run] { map.release(std::array{run}); }; };
  const auto defer = [&](BlockRun run, std::uint64_t seq) {
    return [&map, run, seq] { map.defer(TxnSeq(seq), std::array{run}); };
  };
  CHECK(aborts(release(run_of(95, 6))));    // reaches into released blocks
  CHECK(aborts(release(run_of(209, 1))));   // pending
  CHECK(aborts(release(run_of(500, 1))));   // never allocated
  CHECK(aborts(release(run_of(1000, 1))));  // outside
  CHECK(aborts(release(run_of(1, UINT64_MAX))));
  CHECK(aborts(defer(run_of(100, 1), 3)));   // free
  CHECK(aborts(defer(run_of(195, 20), 3)));  // pending
  CHECK(aborts(defer(run_of(990, 20), 3)));  // outside
  CHECK(aborts(defer(run_of(0, 1), 1)));     // a transaction before the last one
  CHECK_FALSE(aborts(release(run_of(0, 100))));
  CHECK_FALSE(aborts(defer(run_of(0, 100), 2)));
}

TEST_CASE("blocks outside of the store are corruption to a rebuild") {
  SpaceMap map;
  map.add_segment(1000);
  for (const BlockRun& run : {run_of(999, 2), run_of(1000, 1), run_of(5000, 1),
                              run_of(1, UINT64_MAX), run_of(UINT64_MAX, 2)}) {
    const Result<void> outcome = map.mark_used(run);
    REQUIRE_FALSE(outcome);
    CHECK(outcome.error().is_corruption());
  }
  CHECK(map.stats().free_blocks == 1000);
  CHECK(map.mark_used(run_of(10, 20)));
  CHECK(map.mark_used(run_of(10, 25)));
  CHECK(map.stats().free_blocks == 975);
}

TEST_CASE("a saved bitmap that does not fit is corruption") {
  SpaceMap map;
  map.add_segment(1003);
  REQUIRE(map.mark_used(run_of(0, 9)));
  const std::string saved = map.save_segment(0);
  CHECK(saved.size() == 126);
  CHECK(saved.substr(0, 3) == std::string("\xFF\x01\x00", 3));
  CHECK(map.load_segment(0, saved + '\0').error().is_corruption());
  CHECK(map.load_segment(0, saved.substr(1)).error().is_corruption());
  CHECK(map.load_segment(0, "").error().is_corruption());
  CHECK(map.load_segment(1, saved).error().is_corruption());
  std::string behind_the_end = saved;
  behind_the_end.back() = '\x08';
  CHECK(map.load_segment(0, behind_the_end).error().is_corruption());
  CHECK(map.stats().free_blocks == 994);
  behind_the_end.back() = '\x04';
  CHECK(map.load_segment(0, behind_the_end));
  CHECK(map.stats().free_blocks == 993);
  CHECK_FALSE(map.is_free(BlockNo(1002)));
}

TEST_CASE("threads never get the same block") {
  constexpr std::uint64_t kBlocks = 20'000;
  SpaceMap map;
  map.add_segment(kBlocks / 2);
  std::vector<std::atomic<int>> owners(kBlocks);
  std::atomic<bool> shared = false;
  std::atomic<std::uint64_t> seq = 1;
  std::mutex seq_mutex;
  const auto work = [&](unsigned salt) {
    for (unsigned i = 0; i < 3000; ++i) {
      Runs runs;
      if (!map.allocate(1 + (i * 7 + salt) % 50, 0, runs)) {
        continue;
      }
      for (const BlockRun& run : runs) {
        for (std::uint64_t n = 0; n < run.count; ++n) {
          shared = shared | (owners[run.first.value() + n].exchange(1) != 0);
        }
      }
      for (const BlockRun& run : runs) {
        for (std::uint64_t n = 0; n < run.count; ++n) {
          owners[run.first.value() + n].store(0);
        }
      }
      if (i % 2 == 0) {
        map.release(runs);
      } else {
        const std::scoped_lock lock(seq_mutex);
        map.defer(TxnSeq(++seq), runs);
      }
      if (i % 16 == 0) {
        map.release(map.take_free(map.settle(TxnSeq(seq))));
      }
    }
  };
  std::vector<std::thread> threads;
  for (unsigned salt = 0; salt < 4; ++salt) {
    threads.emplace_back(work, salt);
  }
  map.add_segment(kBlocks / 2);
  for (std::thread& thread : threads) {
    thread.join();
  }
  map.settle(TxnSeq(seq));
  CHECK_FALSE(shared);
  CHECK(map.stats().free_blocks == kBlocks);
  CHECK(map.stats().pending_blocks == 0);
}

}  // namespace
}  // namespace odx
