// Tokens from many threads at once, and what a control costs.
#include <atomic>

#include "unit/crew.hpp"
#include "unit/token_world.hpp"

namespace odx::test {
namespace {

constexpr std::uint64_t kBytes = 128 << 10;

std::string read_all(Store& store, InodeNo ino) {
  std::string out(kBytes, '\0');
  const auto got = store.files().read(ino, FileOffset(0), std::as_writable_bytes(std::span(out)));
  return got && *got == kBytes ? out : "";
}

bool redeem(Tokens& tokens, InodeNo ino, std::uint64_t at, std::uint64_t length,
            const odx_token& token) {
  odx_offload call = TokenWorld::write_call(at, length, token, at);
  return tokens.offload_write(ino, kRoot, call) == 0 &&
         call.body.write_out.length_written == length && call.c.bytes_shared == length;
}

TEST_CASE("one token redeemed by many beside writers of its source", "[token][parallel]") {
  TokenWorld world;
  Store& store = world.store();
  const std::string image = pattern(kBytes, 1);
  const InodeNo source = world.file("s", image);
  const odx_token token = world.token(source, 0, kBytes);

  Crew crew;
  for (unsigned n = 0; n < 8; ++n) {
    const InodeNo mine = world.file("d" + std::to_string(n), pattern(kBytes, 100 + n));
    crew.add(20, [&, mine](int i) {
      if (i % 2 == 0) {
        return redeem(world.tokens(), mine, 0, kBytes, token) && read_all(store, mine) == image;
      }
      // In two halves over something else.
      const std::string other(kBytes, 'x');
      return store.files().write(mine, FileOffset(0), std::as_bytes(std::span(other))) &&
             redeem(world.tokens(), mine, kBytes / 2, kBytes / 2, token) &&
             redeem(world.tokens(), mine, 0, kBytes / 2, token) && read_all(store, mine) == image;
    });
  }
  for (unsigned n = 0; n < 2; ++n) {
    crew.add(60, [&, n](int i) {
      const std::string bytes = pattern(12'000, 50 + n);
      return store.files()
          .write(source, FileOffset(static_cast<std::uint64_t>(i) * 1'000 + n),
                 std::as_bytes(std::span(bytes)))
          .has_value();
    });
  }
  crew.add(10, [&](int) {
    const bool durable =
        store.core().meta->wait_durable(store.core().meta->committed()).has_value();
    store.core().settle_space();
    return durable && store.reclaim().has_value();
  });
  REQUIRE(crew.finish() == 0);
  REQUIRE(world.shown(token, kBytes) == image);
  REQUIRE(world.tokens().live() == 1);
  world.close();
}

TEST_CASE("concurrent WRITEs to one range leave one of them whole", "[token][parallel]") {
  TokenWorld world;
  Store& store = world.store();
  const std::string a = pattern(kBytes, 1);
  const std::string b = pattern(kBytes, 2);
  const odx_token token_a = world.token(world.file("a", a), 0, kBytes);
  const odx_token token_b = world.token(world.file("b", b), 0, kBytes);
  const InodeNo target = world.file("t", a);
  Crew crew;
  for (const odx_token* token : {&token_a, &token_b, &token_a, &token_b}) {
    crew.add(40, [&, token](int) { return redeem(world.tokens(), target, 0, kBytes, *token); });
  }
  for (int n = 0; n < 2; ++n) {
    crew.add(40, [&](int) {
      const std::string seen = read_all(store, target);
      return seen == a || seen == b;
    });
  }
  REQUIRE(crew.finish() == 0);
  world.close();
}

TEST_CASE("tokens made, dropped, expired and listed at once", "[token][parallel]") {
  TokenWorld world({.tokens = {.max_total = 300}});
  const std::string image = pattern(kBytes, 1);
  const InodeNo source = world.file("s", image);
  const auto make = [&](std::uint32_t uid, std::uint32_t ttl_ms) {
    odx_offload call = TokenWorld::read_call(0, kBytes, ttl_ms);
    const int error = world.tokens().offload_read(source, user(uid), call);
    return error == 0 ? std::optional(call.body.read_out.token) : std::nullopt;
  };
  Crew crew;
  for (unsigned n = 0; n < 4; ++n) {
    crew.add(40, [&, n](int i) {
      const auto token = make(n, 5'000);
      return token && (i % 2 != 0 || world.tokens().drop(id_of(*token), n).has_value());
    });
  }
  crew.add(40, [&](int) { return make(9, 1).has_value(); });
  crew.add(60, [&](int) {
    world.advance_ms(1);
    return world.tokens().expire().has_value();
  });
  crew.add(20, [&](int) { return world.tokens().list({}, 16, 0).has_value(); });
  crew.add(20, [&](int) { return world.tokens().live() <= 300; });
  REQUIRE(crew.finish() == 0);

  world.advance_ms(1);
  ok(world.tokens().expire());
  REQUIRE(world.tokens().live() == 80);
  REQUIRE(world.tokens().pinned_bytes() == 80 * kBytes);
  REQUIRE(ok(world.tokens().list({}, 1'000, 0)).size() == 80);
  REQUIRE(world.core().counters.tokens_created.load() == 200);
  REQUIRE(world.core().counters.tokens_expired.load() == 40);
  REQUIRE(world.records(keys::kToken) == 120);
  world.reopen();
  REQUIRE(world.tokens().live() == 80);
  REQUIRE(world.tokens().pinned_bytes() == 80 * kBytes);
  world.close();
}

TEST_CASE("a limit is exact under a rush", "[token][parallel]") {
  TokenWorld world({.tokens = {.max_total = 50}});
  const InodeNo source = world.file("s", pattern(4096, 1));
  std::atomic<int> made{0};
  Crew crew;
  for (int n = 0; n < 8; ++n) {
    crew.add(20, [&](int) {
      odx_offload call = TokenWorld::read_call(0, 4096);
      const int error = world.tokens().offload_read(source, kRoot, call);
      made += error == 0 ? 1 : 0;
      return error == 0 || error == ENOBUFS;
    });
  }
  REQUIRE(crew.finish() == 0);
  REQUIRE(made == 50);
  REQUIRE(world.records(keys::kToken) == 50);
  world.close();
}

// A file of `extents` pieces that do not touch, with holes between.
InodeNo fragmented(TokenWorld& world, const std::string& name, std::uint64_t extents) {
  const InodeNo ino = world.file(name);
  const std::string block = pattern(kBlockBytes, 1);
  for (std::uint64_t i = 0; i < extents; ++i) {
    world.write_bytes(ino, 2 * i * kBlockBytes, block);
  }
  world.truncate(ino, 2 * extents * kBlockBytes);
  return ino;
}

struct Cost {
  std::uint64_t journal_bytes = 0;
  std::size_t nodes = 0;
};

// Of a READ and a WRITE in the middle of fragmented files.
Cost cost_at(TokenWorld& world, std::uint64_t extents) {
  const InodeNo source = fragmented(world, "s" + std::to_string(extents), extents);
  const InodeNo destination = fragmented(world, "d" + std::to_string(extents), extents);
  const std::uint64_t third = round_down(world.inode(source).size() / 3, 512) + 512;
  Cost cost;
  {
    Mutation mutation = ok(Mutation::begin(world.core()));
    const Inode inode = ok(mutation.inode(source));
    ok(mutation.trees().slice(inode.tree, FileOffset(third), third));
    cost.nodes = mutation.trees().nodes_touched();  // abandoned
  }
  const auto journalled = [&] {
    world.sync();
    return world.core().meta->stats().journal_bytes;
  };
  const std::uint64_t before = journalled();
  const odx_token token = world.token(source, third, third);
  REQUIRE(world.write(destination, third, third, token).written() == third);
  cost.journal_bytes = journalled() - before;
  REQUIRE(world.content(destination).substr(third, third) ==
          world.content(source).substr(third, third));
  return cost;
}

TEST_CASE("what a control costs does not depend on the number of extents", "[token][cost]") {
  TokenWorld world({.limit_bytes = 256 << 20});
  const Cost small = cost_at(world, 1'500);
  const Cost large = cost_at(world, 6'000);
  CAPTURE(small.nodes, large.nodes, small.journal_bytes, large.journal_bytes);
  REQUIRE(small.nodes > 1);
  // One level more at most, on the two or three paths that each step takes.
  REQUIRE(large.nodes <= small.nodes + 6);
  REQUIRE(large.journal_bytes < small.journal_bytes * 2);
  world.close();
}

}  // namespace
}  // namespace odx::test
