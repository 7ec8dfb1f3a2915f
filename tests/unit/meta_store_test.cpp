#include <sys/resource.h>

#include <catch2/catch.hpp>
#include <csignal>
#include <thread>
#include <vector>

#include "meta_world.hpp"

using namespace odx;
using odx::test::folder;
using odx::test::MetaWorld;
using odx::test::must;
using odx::test::read_file;
using odx::test::State;
using odx::test::state_of;

namespace {

int errno_of(const Result<void>& result) { return result ? 0 : result.error().errno_value(); }

TxnSeq put(MetaStore& store, const std::string& key, std::string value) {
  WriteSet writes;
  writes.insert_or_assign(key, std::move(value));
  return must(store.commit(std::move(writes)));
}

void put_durably(MetaStore& store, const std::string& key, std::string value) {
  must(store.wait_durable(put(store, key, std::move(value))));
}

// Flips one bit of the first occurrence of `text` in the file.
void damage(const std::string& path, const std::string& text) {
  std::string bytes = read_file(path);
  const std::size_t at = bytes.find(text);
  REQUIRE(at != std::string::npos);
  bytes[at] = static_cast<char>(bytes[at] ^ 1);
  test::write_file(path, bytes);
}

}  // namespace

TEST_CASE("commits are visible at once, durable when waited for, and stay") {
  MetaWorld w;
  MetaStore& store = w.open();
  CHECK(store.committed() == TxnSeq(0));
  CHECK(must(store.commit({{"a", "1"}, {"b", "2"}})) == TxnSeq(1));
  CHECK(must(store.get("a")) == "1");
  CHECK(store.committed() == TxnSeq(1));
  CHECK(store.durable() == TxnSeq(0));
  must(store.wait_durable(TxnSeq(1)));
  CHECK(store.durable() == TxnSeq(1));
  CHECK(must(store.commit({{"b", std::nullopt}, {"c", "3"}})) == TxnSeq(2));
  CHECK(must(store.commit({})) == TxnSeq(3));
  must(store.wait_durable(TxnSeq(3)));
  CHECK(state_of(store) == State{{"a", "1"}, {"c", "3"}});
  CHECK(store.stats().flushes == 2);
  CHECK(store.stats().commits == 3);

  SECTION("after a crash") {
    MetaStore& again = w.reopen();
    CHECK(again.stats().replayed_batches == 2);
    CHECK(again.stats().replay_end == JournalEnd::kClean);
    CHECK(again.committed() == TxnSeq(0));
    CHECK(state_of(again) == State{{"a", "1"}, {"c", "3"}});
    CHECK(put(again, "d", "4") == TxnSeq(1));
  }
  SECTION("after a checkpoint and a crash") {
    must(store.checkpoint());
    CHECK(store.stats().checkpoints == 1);
    CHECK(store.stats().memtable_bytes == 0);
    CHECK(state_of(store) == State{{"a", "1"}, {"c", "3"}});
    put(store, "lost", "x");
    MetaStore& again = w.reopen();
    CHECK(again.stats().replayed_batches == 0);
    CHECK(state_of(again) == State{{"a", "1"}, {"c", "3"}});
  }
  SECTION("after a clean end, which flushes what nobody waited for") {
    put(store, "d", "4");
    must(store.close());
    CHECK(must(store.get("d")) == "4");
    CHECK(errno_of(store.throttle()) == ESHUTDOWN);
    CHECK(store.commit({}).error().errno_value() == ESHUTDOWN);
    CHECK(errno_of(store.wait_durable(TxnSeq(4))) == 0);
    CHECK(errno_of(store.close()) == 0);
    MetaStore& again = w.reopen();
    CHECK(again.stats().replayed_batches == 0);
    CHECK(state_of(again) == State{{"a", "1"}, {"c", "3"}, {"d", "4"}});
    const State before = folder(w.path());
    must(again.close());
    CHECK((folder(w.path()) == before));  // there was nothing to write
  }
}

TEST_CASE("a batch holds each key once") {
  MetaWorld w;
  MetaStore& store = w.open();
  for (int i = 0; i < 1000; ++i) {
    put(store, "counter", std::to_string(i));
  }
  must(store.wait_durable(store.committed()));
  CHECK(store.stats().flushes == 1);
  CHECK(store.stats().journal_bytes < 50);
  CHECK(must(w.reopen().get("counter")) == "999");
}

TEST_CASE("scans merge what is new with what is old") {
  MetaWorld w;
  MetaStore& store = w.open();
  must(store.commit({{"a", "1"}, {"b", "1"}, {"c", "1"}, {"d", "1"}, {"e", "1"}}));
  must(store.checkpoint());
  must(store.commit({{"b", std::nullopt}, {"c", "2"}, {"cc", "2"}, {"x", std::nullopt}}));
  const auto text = [&](std::string_view from, std::string_view end, std::size_t limit) {
    std::string out;
    for (const KeyValue& pair : must(store.scan(from, end, limit))) {
      out += pair.key + pair.value + " ";
    }
    return out;
  };
  CHECK(text("", "z", 100) == "a1 c2 cc2 d1 e1 ");
  CHECK(text("", "z", 2) == "a1 c2 ");
  CHECK(text("b", "d", 100) == "c2 cc2 ");
  CHECK(text("b", "c", 100).empty());
  CHECK(text("c", "c", 100).empty());
  CHECK(text("a", "z", 0).empty());
  CHECK(text(std::string("\0", 1), "b", 9) == "a1 ");
  CHECK(store.get("").error().errno_value() == EINVAL);
  CHECK(store.get(std::string(501, 'k')).error().errno_value() == EINVAL);
  CHECK(store.get(std::string("\0applied", 8)).error().errno_value() == EINVAL);
  TxnSeq stamp;
  CHECK(must(store.get_stamped("a", stamp)) == "1");
  CHECK(stamp == TxnSeq(2));
}

TEST_CASE("file data is synced before the batch that names it is written") {
  MetaWorld w;
  std::vector<std::string> events;
  w.sync = [&]() -> Result<void> {
    events.push_back("sync at " + std::to_string(w.store->stats().flushes) + " flushes, durable " +
                     std::to_string(w.store->durable().value()));
    return {};
  };
  w.announced = [&](TxnSeq seq) {
    events.push_back("durable " + std::to_string(seq.value()) + " at " +
                     std::to_string(w.store->stats().flushes) + " flushes");
    CHECK(w.store->durable() == seq);
  };
  MetaStore& store = w.open();
  put(store, "a", "1");
  put_durably(store, "b", "2");
  put_durably(store, "c", "3");
  must(store.checkpoint());
  must(store.close());
  CHECK(events == std::vector<std::string>{"sync at 0 flushes, durable 0", "durable 2 at 1 flushes",
                                           "sync at 1 flushes, durable 2",
                                           "durable 3 at 2 flushes"});
}

TEST_CASE("a failed data sync fails the store for good and makes nothing durable") {
  MetaWorld w;
  std::atomic<bool> broken{false};
  w.sync = [&]() -> Result<void> { return broken ? fail(ENXIO, "disk gone") : Result<void>(); };
  MetaStore& store = w.open();
  put_durably(store, "a", "1");
  broken = true;
  const TxnSeq lost = put(store, "b", "2");
  CHECK(errno_of(store.wait_durable(lost)) == ENXIO);
  broken = false;
  CHECK(store.durable() == TxnSeq(1));
  CHECK(errno_of(store.health()) == ENXIO);
  CHECK(store.commit({{"c", "3"}}).error().errno_value() == ENXIO);
  CHECK(errno_of(store.wait_durable(TxnSeq(1))) == ENXIO);
  CHECK(errno_of(store.throttle()) == ENXIO);
  CHECK(errno_of(store.checkpoint()) == ENXIO);
  CHECK(must(store.get("b")) == "2");  // reads go on
  CHECK(errno_of(store.close()) == ENXIO);
  CHECK(w.announced_durable() == 1);
  CHECK(state_of(w.reopen()) == State{{"a", "1"}});
}

TEST_CASE("a failed checkpoint fails the store but loses nothing") {
  MetaWorld w;
  MetaStore& store = w.open();
  State expected;
  for (int i = 0; i < 20; ++i) {
    const std::string key = "k" + std::to_string(i);
    expected[key] = std::string(20'000, static_cast<char>('a' + i));
    put_durably(store, key, expected[key]);
  }
  // No file may be written behind this, so LMDB cannot store the values.
  rlimit before{};
  REQUIRE(::getrlimit(RLIMIT_FSIZE, &before) == 0);
  const auto old_handler = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit tight{100'000, before.rlim_max};
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &tight) == 0);
  const Result<void> checkpointed = store.checkpoint();
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &before) == 0);
  std::signal(SIGXFSZ, old_handler);

  CHECK_FALSE(checkpointed);
  CHECK(errno_of(store.health()) == errno_of(checkpointed));
  CHECK_FALSE(store.commit({{"z", "z"}}));
  CHECK(state_of(store) == expected);
  CHECK(state_of(w.reopen()) == expected);
  must(w.store->checkpoint());
  CHECK(state_of(w.reopen()) == expected);
  CHECK(w.store->stats().replayed_batches == 0);
}

TEST_CASE("a transaction larger than the journal takes goes around it, whole") {
  MetaWorld w;
  MetaStore& store = w.open();
  put_durably(store, "a", "old");
  put(store, "early", "1");
  WriteSet writes;
  for (int i = 0; i < 10; ++i) {
    writes["big" + std::to_string(i)] = std::string(100'000, static_cast<char>('a' + i));
  }
  writes["a"] = "new";
  must(store.wait_durable(must(store.commit(std::move(writes)))));
  CHECK(store.stats().flushes == 1);
  CHECK(store.stats().checkpoints == 1);
  put_durably(store, "after", "2");
  const State all = state_of(store);
  CHECK(all.size() == 13);
  CHECK((state_of(w.reopen()) == all));
  CHECK(w.store->stats().replayed_batches == 1);
}

TEST_CASE("a ring that fills up empties itself") {
  MetaWorld w;
  MetaStore& store = w.open();
  State expected;
  for (int i = 0; i < 100; ++i) {
    const std::string key = "k" + std::to_string(i % 7);
    expected[key] = std::string(200'000 + static_cast<std::size_t>(i), 'v');
    put_durably(store, key, expected[key]);
  }
  CHECK(store.stats().checkpoints > 5);
  CHECK((state_of(store) == expected));
  CHECK((state_of(w.reopen()) == expected));
}

TEST_CASE("flushes and checkpoints happen by themselves") {
  MetaWorld w;
  SECTION("by the timer") {
    w.options.flush_interval = std::chrono::milliseconds(1);
    MetaStore& store = w.open();
    for (int i = 0; i < 3; ++i) {
      w.wait_announced(put(store, "k", "v"));
    }
  }
  SECTION("by the size of the open batch") {
    w.options.batch_bytes = 1000;
    MetaStore& store = w.open();
    for (int i = 0; i < 3; ++i) {
      w.wait_announced(put(store, "k", std::string(1000, 'x')));
    }
  }
  SECTION("by the size of the memtable") {
    w.options.memtable_bytes = 5000;
    MetaStore& store = w.open();
    const TxnSeq seq = put(store, "k", std::string(5000, 'x'));
    w.wait_announced(seq);
    while (store.stats().checkpoints == 0) {
      std::this_thread::yield();
    }
  }
}

TEST_CASE("who would overfill the open batch has to wait") {
  MetaWorld w;
  w.options.batch_bytes = 1000;
  std::mutex gate;
  std::atomic<bool> in_sync{false};
  w.sync = [&]() -> Result<void> {
    in_sync = true;
    const std::lock_guard lock(gate);
    return {};
  };
  MetaStore& store = w.open();
  std::unique_lock closed(gate);
  must(store.throttle());
  put(store, "a", std::string(1000, 'x'));
  while (!in_sync) {
    std::this_thread::yield();
  }
  put(store, "b", std::string(3000, 'x'));
  must(store.throttle());  // still below four times the size
  put(store, "c", std::string(3000, 'x'));

  std::atomic<bool> opened{false};
  std::atomic<bool> started{false};
  bool waited = false;
  std::thread writer([&] {
    started = true;
    must(store.throttle());
    waited = opened;
  });
  for (int i = 0; i < 1000 || !started; ++i) {
    std::this_thread::yield();
  }
  opened = true;
  closed.unlock();
  writer.join();
  CHECK(waited);
  must(store.wait_durable(store.committed()));
}

TEST_CASE("a read-only store shows everything and changes nothing") {
  MetaWorld w;
  MetaStore& store = w.open();
  put(store, "a", "1");
  must(store.checkpoint());
  put_durably(store, "b", "2");
  w.store.reset();
  w.options.read_only = true;
  const State files = folder(w.path());
  {
    MetaStore& frozen = w.open();
    CHECK(state_of(frozen) == State{{"a", "1"}, {"b", "2"}});
    CHECK(frozen.stats().replayed_batches == 1);
    CHECK(errno_of(frozen.health()) == 0);
    CHECK(frozen.commit({{"c", "3"}}).error().errno_value() == EROFS);
    CHECK(errno_of(frozen.throttle()) == EROFS);
    CHECK(errno_of(frozen.checkpoint()) == EROFS);
    CHECK(errno_of(frozen.wait_durable(TxnSeq(0))) == 0);
    CHECK(errno_of(frozen.close()) == 0);
    w.store.reset();
  }
  CHECK((folder(w.path()) == files));
}

TEST_CASE("a damaged journal opens read-only and says so") {
  MetaWorld w;
  const bool closed_before = GENERATE(false, true);
  {
    MetaStore& store = w.open();
    put_durably(store, "a", "1");
    if (closed_before) {
      must(store.close());
      w.reopen();
    }
    put_durably(*w.store, "b", "value two");
    put_durably(*w.store, "c", "3");
    w.store.reset();
  }
  damage(w.journal(), "value two");
  const State files = folder(w.path());
  MetaStore& store = w.open();
  CHECK(store.stats().replay_end == JournalEnd::kDamaged);
  REQUIRE(errno_of(store.health()) == EROFS);
  CHECK(store.health().error().detail().find("damaged") != std::string::npos);
  CHECK(store.commit({{"d", "4"}}).error().errno_value() == EROFS);
  CHECK(errno_of(store.checkpoint()) == EROFS);
  CHECK(errno_of(store.wait_durable(TxnSeq(0))) == 0);
  CHECK(state_of(store) == State{{"a", "1"}});
  CHECK(errno_of(store.close()) == 0);
  w.store.reset();
  CHECK(read_file(w.journal()) == files.at(w.journal()));
}

TEST_CASE("a damaged value in LMDB is reported and never served") {
  MetaWorld w;
  MetaStore& store = w.open();
  put(store, "Dgood", "healthy");
  put(store, "Dname", "some directory entry");
  must(store.close());
  w.store.reset();
  damage(w.data(), "some directory entry");
  MetaStore& again = w.open();
  CHECK(must(again.get("Dgood")) == "healthy");
  const auto hurt = again.get("Dname");
  REQUIRE_FALSE(hurt);
  CHECK(hurt.error().is_corruption());
  CHECK(hurt.error().detail().find("table D") != std::string::npos);
  CHECK(again.scan("A", "Z", 10).error().is_corruption());
  put(again, "Dname", "replaced");
  CHECK(must(again.get("Dname")) == "replaced");
  must(again.checkpoint());
  CHECK(must(again.get("Dname")) == "replaced");
}

TEST_CASE("what cannot be read can be deleted") {
  MetaWorld w;
  put(w.open(), "Dname", "some directory entry");
  must(w.store->close());
  w.store.reset();
  damage(w.data(), "some directory entry");
  MetaStore& store = w.open();
  // A commit fails in the failed state only: its caller has published what is in it.
  must(store.commit({{"Dname", std::nullopt}, {"Dother", "value"}}));
  REQUIRE_FALSE(must(store.get("Dname")));
  must(store.checkpoint());
  REQUIRE_FALSE(must(w.reopen().get("Dname")));
  CHECK(must(w.store->get("Dother")) == "value");
}

TEST_CASE("a base that is missing or cut short is an error") {
  MetaWorld w;
  {
    MetaStore& store = w.open();
    for (int i = 0; i < 200; ++i) {
      put(store, "key" + std::to_string(i), std::string(1000, 'x'));
    }
    must(store.close());
    w.store.reset();
  }
  const auto try_open = [&]() -> Result<void> {
    auto opened = MetaStore::open(
        w.path(), Uuid{1, 2, 3}, w.options, []() -> Result<void> { return {}; }, [](TxnSeq) {});
    if (!opened) {
      return std::unexpected(opened.error());
    }
    for (int i = 0; i < 200; ++i) {
      if (const auto value = (*opened)->get("key" + std::to_string(i)); !value) {
        return std::unexpected(value.error());
      }
    }
    return {};
  };
  CHECK(try_open());
  const std::string whole = read_file(w.data());
  for (const std::size_t part : {2, 3, 4, 8}) {
    CAPTURE(part);
    test::write_file(w.data(), whole.substr(0, whole.size() / part / 4096 * 4096));
    w.options.read_only = true;
    CHECK_FALSE(try_open());
    w.options.read_only = false;
    CHECK_FALSE(try_open());
  }
  std::filesystem::remove(w.data());
  CHECK(errno_of(try_open()) == ENOENT);
  std::filesystem::remove(w.journal());
  test::write_file(w.data(), whole);
  CHECK(errno_of(try_open()) == ENOENT);
}

TEST_CASE("the map grows under the feet of readers") {
  MetaWorld w;
  w.options.map_bytes = 64 << 10;
  w.options.memtable_bytes = 100 << 10;
  MetaStore& store = w.open();
  put(store, "k0", std::string(3000, 'a'));
  std::atomic<bool> stop{false};
  std::vector<std::thread> readers;
  for (int i = 0; i < 3; ++i) {
    readers.emplace_back([&] {
      while (!stop) {
        if (must(store.get("k0")) != std::string(3000, 'a') ||
            must(store.scan("k", "l", 20)).empty()) {
          stop = true;
        }
      }
    });
  }
  for (int i = 1; i < 2000; ++i) {
    must(store.throttle());
    put(store, "k" + std::to_string(i), std::string(3000, 'b'));
  }
  must(store.checkpoint());
  CHECK_FALSE(stop.exchange(true));
  for (std::thread& reader : readers) {
    reader.join();
  }
  CHECK(state_of(store).size() == 2000);
  CHECK(state_of(w.reopen()).size() == 2000);
}
