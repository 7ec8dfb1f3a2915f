// SpaceMap against a model that knows each block's state.
#include <rapidcheck.h>

#include <algorithm>
#include <array>
#include <catch2/catch.hpp>
#include <map>
#include <memory>
#include <set>
#include <tuple>
#include <vector>

#include "store/space/space_map.hpp"

namespace odx {
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

bool ascending_and_apart(const Runs& runs) {
  return std::adjacent_find(runs.begin(), runs.end(), [](const BlockRun& a, const BlockRun& b) {
           return b.first <= a.end();
         }) == runs.end();
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

}  // namespace
}  // namespace odx
