// The metadata store under many threads; meant for ThreadSanitizer too.
#include <catch2/catch.hpp>
#include <thread>
#include <vector>

#include "meta_world.hpp"

using namespace odx;
using odx::test::MetaWorld;
using odx::test::must;

namespace {

// Catch's assertions are not for threads: each thread counts what went wrong.
struct Threads {
  std::atomic<int> wrong{0};
  std::vector<std::thread> all;

  template <class Body>
  void start(int count, Body body) {
    for (int i = 0; i < count; ++i) {
      all.emplace_back([this, body, i] { wrong += body(i) ? 0 : 1; });
    }
  }
  void join() {
    for (std::thread& one : all) {
      one.join();
    }
    all.clear();
  }
};

std::string padded(int number) {
  std::string text = std::to_string(number);
  return std::string(6 - text.size(), '0') + text;
}

}  // namespace

TEST_CASE("readers, committers, waiters and checkpoints together") {
  MetaWorld w;
  w.options.batch_bytes = 4000;
  w.options.memtable_bytes = 60'000;
  w.options.map_bytes = 64 << 10;
  w.options.flush_interval = std::chrono::milliseconds(1);
  std::atomic<std::uint64_t> last_durable{0};
  std::atomic<bool> order_broken{false};
  w.announced = [&](TxnSeq seq) {
    order_broken = order_broken || last_durable.exchange(seq.value()) >= seq.value();
  };
  MetaStore& store = w.open();
  constexpr int kCommitters = 4;
  constexpr int kCommits = 400;
  std::mutex mutation;  // commits come one at a time
  std::atomic<int> committing{kCommitters};
  Threads threads;

  threads.start(kCommitters, [&](int me) {
    bool good = true;
    for (int i = 0; i < kCommits; ++i) {
      good = good && store.throttle().has_value();
      Result<TxnSeq> seq = TxnSeq(0);
      {
        const std::lock_guard lock(mutation);
        const std::string now = std::to_string(store.committed().value() + 1);
        // The two ends of the scan must always agree; what is between comes and goes.
        WriteSet writes{{"m0", now}, {"m9", now}};
        writes["m5" + std::to_string(i % 50)] =
            i % 3 == 0 ? std::nullopt : std::optional(std::string(300, 'v'));
        writes["own" + std::to_string(me) + padded(i)] = now;
        seq = store.commit(std::move(writes));
      }
      good = good && seq.has_value();
      if (i % 4 == me) {
        good = good && store.wait_durable(*seq) && store.durable() >= *seq;
      }
    }
    --committing;
    return good;
  });
  threads.start(2, [&](int) {
    bool good = true;
    while (committing > 0 && good) {
      const auto pairs = store.scan("m", "n", 1000);
      good = pairs.has_value() &&
             (pairs->empty() || (pairs->front().key == "m0" && pairs->back().key == "m9" &&
                                 pairs->front().value == pairs->back().value));
    }
    return good;
  });
  threads.start(2, [&](int) {
    bool good = true;
    std::uint64_t newest = 0;
    while (committing > 0 && good) {
      TxnSeq stamp;
      const auto value = store.get_stamped("m0", stamp);
      const std::uint64_t seen = value && *value ? std::stoull(**value) : 0;
      good = value.has_value() && seen >= newest && seen <= stamp.value() &&
             stamp <= store.committed();
      newest = seen;
      good = good && store.stats().commits >= seen && store.health().has_value();
    }
    return good;
  });
  threads.start(1, [&](int) {
    bool good = true;
    while (committing > 0 && good) {
      const TxnSeq before = store.committed();
      good = store.checkpoint().has_value() && store.durable() >= before;
    }
    return good;
  });
  threads.join();
  CHECK(threads.wrong == 0);
  CHECK_FALSE(order_broken);
  CHECK(store.committed() == TxnSeq(kCommitters * kCommits));
  must(store.wait_durable(store.committed()));
  CHECK(store.stats().checkpoints > 1);

  MetaStore& again = w.reopen();
  CHECK(must(again.get("m0")) == std::to_string(kCommitters * kCommits));
  CHECK(must(again.scan("own", "owo", 10'000)).size() == kCommitters * kCommits);
}

TEST_CASE("those who wait together share a flush") {
  MetaWorld w;
  std::mutex gate;
  std::atomic<bool> in_sync{false};
  w.sync = [&]() -> Result<void> {
    in_sync = true;
    const std::lock_guard lock(gate);
    return {};
  };
  MetaStore& store = w.open();
  std::unique_lock closed(gate);
  std::mutex mutation;
  constexpr int kWaiters = 16;
  std::atomic<int> committed{0};
  Threads threads;
  const auto commit_and_wait = [&](int me) {
    Result<TxnSeq> seq = TxnSeq(0);
    {
      const std::lock_guard lock(mutation);
      seq = store.commit({{"k" + std::to_string(me), std::string("v")}});
    }
    ++committed;
    return seq && store.wait_durable(*seq);
  };
  // The first one's flush hangs in its sync while the others commit behind it.
  threads.start(1, [&](int) { return commit_and_wait(100); });
  while (!in_sync) {
    std::this_thread::yield();
  }
  threads.start(kWaiters, commit_and_wait);
  while (committed < kWaiters + 1) {
    std::this_thread::yield();
  }
  closed.unlock();
  threads.join();
  CHECK(threads.wrong == 0);
  CHECK(store.stats().flushes == 2);
}

TEST_CASE("a failure wakes everybody who waits") {
  MetaWorld w;
  w.options.batch_bytes = 1000;
  std::mutex gate;
  std::atomic<bool> in_sync{false};
  w.sync = [&]() -> Result<void> {
    in_sync = true;
    const std::lock_guard lock(gate);
    return fail(EIO, "disk gone");
  };
  MetaStore& store = w.open();
  std::unique_lock closed(gate);
  must(store.commit({{"a", std::string(1000, 'x')}}));
  while (!in_sync) {
    std::this_thread::yield();
  }
  const TxnSeq seq = must(store.commit({{"b", std::string(5000, 'x')}}));
  Threads threads;
  const auto is_the_failure = [](const Result<void>& result) {
    return !result && result.error().detail() == "disk gone";
  };
  threads.start(3, [&](int) { return is_the_failure(store.wait_durable(seq)); });
  threads.start(2, [&](int) { return is_the_failure(store.throttle()); });
  threads.start(2, [&](int) { return is_the_failure(store.checkpoint()); });
  closed.unlock();
  threads.join();
  CHECK(threads.wrong == 0);
  CHECK(store.durable() == TxnSeq(0));
}

TEST_CASE("a checkpoint that ends lets the next one begin") {
  MetaWorld w(16 << 20);
  w.options.memtable_bytes = 1ULL << 30;
  MetaStore& store = w.open();
  WriteSet large;  // finds no room in the journal
  for (int i = 0; i < 18; ++i) {
    large["large" + padded(i)] = std::string(1'000'000, 'x');
  }
  for (int round = 0; round < 4; ++round) {
    // Many keys: letting go of them takes the checkpointer a moment, in which readers do not see
    // the layer any more and yet the checkpoint is not over.
    for (int part = 0; part < 4; ++part) {
      WriteSet many;
      for (int i = 0; i < 40'000; ++i) {
        many["key" + padded(part * 40'000 + i)] = "v";
      }
      must(store.wait_durable(must(store.commit(std::move(many)))));
    }
    WriteSet writes = large;
    Threads threads;
    threads.start(1, [&](int) { return store.checkpoint().has_value(); });
    while (store.stats().memtable_bytes != 0) {
      std::this_thread::yield();
    }
    must(store.wait_durable(must(store.commit(std::move(writes)))));
    threads.join();
    REQUIRE(threads.wrong == 0);
  }
  must(store.close());
}
