#include "store/space/space_map.hpp"

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <catch2/catch.hpp>
#include <csignal>
#include <functional>
#include <mutex>
#include <ostream>
#include <thread>
#include <vector>

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

TEST_CASE("a lap misses no block, wherever the cursor stands") {
  SpaceMap map;
  map.add_segment(12'500);
  allocate(map, 12'500);
  for (const std::uint64_t cursor : {1, 64, 2001, 4096, 8000, 12'499}) {
    for (const std::uint64_t only :
         {0, 1, 63, 64, 2000, 2001, 4095, 4096, 4106, 7999, 8192, 12'287, 12'288, 12'499}) {
      map.release(std::array{run_of(cursor - 1, 1)});
      REQUIRE(allocate(map, 1) == Runs{run_of(cursor - 1, 1)});
      map.release(std::array{run_of(only, 1)});
      REQUIRE(allocate(map, 1) == Runs{run_of(only, 1)});
    }
  }
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

TEST_CASE("nothing is freed twice") {
  SpaceMap map;
  map.add_segment(1000);
  allocate(map, 300);
  map.release(std::array{run_of(100, 10)});
  map.defer(TxnSeq(2), std::array{run_of(200, 10)});
  const auto release = [&](BlockRun run) { return [&map, run] { map.release(std::array{run}); }; };
  const auto defer = [&](BlockRun run, std::uint64_t seq) {
    return [&map, run, seq] { map.defer(TxnSeq(seq), std::array{run}); };
  };
  const SpaceStats before = map.stats();
  map.release(std::array{run_of(95, 6)});   // reaches into released blocks
  map.release(std::array{run_of(209, 1)});  // pending
  map.release(std::array{run_of(500, 1)});  // never allocated
  CHECK(map.stats().free_blocks == before.free_blocks);
  CHECK(map.stats().pending_blocks == before.pending_blocks);
  // Damaged records may want any of this; whoever acts on them asks first.
  const auto refused = [&](std::initializer_list<BlockRun> runs) {
    const Result<void> answer = map.check_used(std::span(runs.begin(), runs.size()));
    return !answer && answer.error().is_corruption();
  };
  CHECK(refused({run_of(100, 1)}));   // free
  CHECK(refused({run_of(195, 20)}));  // pending
  CHECK(refused({run_of(990, 20)}));  // outside
  CHECK(refused({run_of(1, UINT64_MAX)}));
  CHECK(refused({run_of(5, 10), run_of(0, 10)}));  // twice at once
  CHECK_FALSE(refused({run_of(10, 10), run_of(0, 10), run_of(110, 90), run_of(7, 0)}));

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

TEST_CASE("blocks that are not free are found in order, and counted") {
  SpaceMap map;
  CHECK(map.find_used(BlockNo(0), 10).count == 0);
  CHECK(map.used_from(BlockNo(0)) == 0);
  map.add_segment(5000);
  map.add_segment(1);
  map.add_segment(300);
  std::vector<bool> used(5301);
  std::uint64_t state = 1;
  for (const std::uint64_t first : {0, 63, 64, 4090, 4998, 5000, 5001, 5300}) {
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    const std::uint64_t count = std::min<std::uint64_t>(1 + (state >> 60), used.size() - first);
    REQUIRE(map.mark_used(run_of(first, count)));
    std::fill_n(used.begin() + static_cast<std::ptrdiff_t>(first), count, true);
  }
  const auto is_border = [](std::uint64_t block) { return block == 5000 || block == 5001; };
  for (std::uint64_t from = 0; from <= used.size() + 1; ++from) {
    std::uint64_t behind = 0;
    std::uint64_t first = used.size();
    for (std::uint64_t block = from; block < used.size(); ++block) {
      behind += used[block] ? 1 : 0;
      first = used[block] ? std::min(first, block) : first;
    }
    for (const std::uint64_t most : {1, 7, 10000}) {
      std::uint64_t count = 0;
      while (count < most && first + count < used.size() && used[first + count] &&
             (count == 0 || !is_border(first + count))) {
        ++count;
      }
      const BlockRun found = map.find_used(BlockNo(from), most);
      REQUIRE(found.count == count);
      REQUIRE((count == 0 || found.first.value() == first));
    }
    REQUIRE(map.used_from(BlockNo(from)) == behind);
  }
  // Pending blocks are not free yet.
  const std::uint64_t before = map.used_from(BlockNo(0));
  map.defer(TxnSeq(1), Runs{run_of(5000, 1)});
  CHECK(map.used_from(BlockNo(0)) == before);
  map.settle(TxnSeq(1));
  CHECK(map.used_from(BlockNo(0)) == before - 1);
}

}  // namespace
}  // namespace odx
