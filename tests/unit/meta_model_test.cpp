// The metadata store against std::map, through random commits, checkpoints, ends and crashes.
#include <rapidcheck.h>

#include <catch2/catch.hpp>
#include <vector>

#include "meta_world.hpp"

using namespace odx;
using odx::test::MetaWorld;
using odx::test::must;
using odx::test::State;
using odx::test::state_of;

namespace {

constexpr std::uint64_t kSector = 512;

// Few and short keys, so that they collide.
rc::Gen<std::string> some_key() {
  return rc::gen::map(
      rc::gen::pair(rc::gen::elementOf(std::string("ADZ")),
                    rc::gen::resize(3, rc::gen::container<std::string>(
                                           rc::gen::elementOf(std::string("\0\x01k\xff", 4))))),
      [](const std::pair<char, std::string>& parts) { return parts.first + parts.second; });
}

std::string some_value() {
  const auto bytes = *rc::gen::weightedOneOf<std::size_t>({
      {8, rc::gen::inRange<std::size_t>(0, 60)},
      {2, rc::gen::inRange<std::size_t>(1000, 9000)},
      {1, rc::gen::inRange<std::size_t>(100'000, 300'000)},  // may exceed what one append takes
  });
  static std::uint64_t number = 0;
  std::string value = std::to_string(++number);
  value.resize(bytes, '.');
  return value;
}

WriteSet some_writes() {
  WriteSet writes;
  for (auto count = *rc::gen::inRange(0, 6); count > 0; --count) {
    const std::string key = *some_key();
    if (*rc::gen::inRange(0, 3) == 0) {
      writes[key] = std::nullopt;
    } else {
      writes[key] = some_value();
    }
  }
  return writes;
}

void apply_writes(State& state, const WriteSet& writes) {
  for (const auto& [key, value] : writes) {
    if (value) {
      state[key] = *value;
    } else {
      state.erase(key);
    }
  }
}

// A store and every state that it had since it was opened.
struct Model {
  MetaWorld world;
  std::vector<State> history{{}};

  void commit() {
    WriteSet writes = some_writes();
    history.push_back(history.back());
    apply_writes(history.back(), writes);
    const TxnSeq seq = must(world.store->commit(std::move(writes)));
    RC_ASSERT(seq.value() == history.size() - 1);
    RC_ASSERT(world.store->committed() == seq);
  }

  void check_reads() const {
    const State& now = history.back();
    const std::string from = *some_key();
    const std::string end = *some_key();
    const auto limit = *rc::gen::inRange<std::size_t>(0, 10);
    std::vector<KeyValue> expected;
    for (auto at = now.lower_bound(from);
         at != now.end() && at->first < end && expected.size() < limit; ++at) {
      expected.push_back({at->first, at->second});
    }
    const auto found = must(world.store->scan(from, end, limit));
    RC_ASSERT(found.size() == expected.size());
    for (std::size_t i = 0; i < found.size(); ++i) {
      RC_ASSERT(found[i].key == expected[i].key);
      RC_ASSERT((found[i].value == expected[i].value));
    }
    TxnSeq stamp;
    const auto value = must(world.store->get_stamped(from, stamp));
    const auto at = now.find(from);
    RC_ASSERT((value == (at == now.end() ? std::nullopt : std::optional(at->second))));
    RC_ASSERT(stamp.value() == history.size() - 1);
  }

  void check_everything() const {
    RC_ASSERT((state_of(*world.store, *rc::gen::inRange<std::size_t>(1, 9)) == history.back()));
  }

  // The store must come up as it was after transaction `seq`.
  void reopen_at(std::uint64_t seq) {
    history = {history.at(seq)};
    world.open();
    RC_ASSERT(world.store->stats().replay_end != JournalEnd::kDamaged);
    check_everything();
  }
};

void choose_options(MetaOptions& options, bool by_itself) {
  options.map_bytes = *rc::gen::elementOf(std::vector<std::uint64_t>{64 << 10, 1 << 20});
  const std::vector<std::uint64_t> sizes{300, 20'000, 1'000'000};
  options.batch_bytes = by_itself ? *rc::gen::elementOf(sizes) : 1ULL << 30;
  options.memtable_bytes = by_itself ? *rc::gen::elementOf(sizes) : 1ULL << 30;
  options.flush_interval = std::chrono::milliseconds(by_itself ? *rc::gen::inRange(0, 2) : 0);
}

}  // namespace

TEST_CASE("random use with flushes and checkpoints at any time") {
  REQUIRE(rc::check("the store equals a map, and after a crash a prefix of its history", [] {
    Model model;
    choose_options(model.world.options, true);
    model.world.open();
    const auto steps = *rc::gen::inRange(1, 30);
    for (int step = 0; step < steps; ++step) {
      MetaStore& store = *model.world.store;
      switch (*rc::gen::inRange(0, 14)) {
        case 10:
          must(store.wait_durable(
              TxnSeq(*rc::gen::inRange<std::uint64_t>(0, model.history.size()))));
          break;
        case 11:
          must(store.checkpoint());
          RC_ASSERT(store.durable().value() == model.history.size() - 1);
          break;
        case 12: {
          must(store.close());
          model.reopen_at(model.history.size() - 1);
          RC_ASSERT(model.world.store->stats().replayed_batches == 0U);
          break;
        }
        case 13: {
          // A crash of the process: exactly what was durable is there.
          model.world.store.reset();
          model.reopen_at(model.world.announced_durable());
          break;
        }
        default:
          must(store.throttle());
          model.commit();
          model.check_reads();
      }
    }
    model.check_everything();
  }));
}

TEST_CASE("random power cuts") {
  REQUIRE(rc::check("whatever part of the last batch got to the disk", [] {
    Model model;
    choose_options(model.world.options, false);  // the disk changes only when this test says so
    MetaWorld& world = model.world;
    world.open();
    const auto cuts = *rc::gen::inRange(1, 3);
    for (int cut = 0; cut < cuts; ++cut) {
      for (auto flushes = *rc::gen::inRange(0, 4); flushes > 0; --flushes) {
        for (auto commits = *rc::gen::inRange(1, 4); commits > 0; --commits) {
          model.commit();
        }
        must(*rc::gen::inRange(0, 4) == 0 ? world.store->checkpoint()
                                          : world.store->wait_durable(world.store->committed()));
      }
      const std::uint64_t safe = model.history.size() - 1;
      const std::string before = test::read_file(world.journal());
      model.commit();
      const std::uint64_t flushes = world.store->stats().flushes;
      must(world.store->wait_durable(world.store->committed()));
      const bool journalled = world.store->stats().flushes > flushes;
      world.store.reset();
      // Only some sectors of the last append reached the disk.
      const std::string after = test::read_file(world.journal());
      std::string torn = before;
      const auto seed = *rc::gen::inRange<std::uint64_t>(0, 1000);
      for (std::uint64_t at = 0; at < torn.size(); at += kSector) {
        const bool reached = at / kSector * 2654435761U % 1000 < seed;
        if (reached) {
          torn.replace(at, kSector, after, at, kSector);
        } else if (torn.compare(at, kSector, after, at, kSector) != 0) {
          test::patch_file(world.journal(), at, before.substr(at, kSector));
        }
      }
      world.open();
      const State found = state_of(*world.store);
      world.store.reset();
      const State& last = model.history.back();
      RC_ASSERT((found == last || (journalled && torn != after && found == model.history[safe])));
      model.reopen_at(found == last ? model.history.size() - 1 : safe);
    }
  }));
}
