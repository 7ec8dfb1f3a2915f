// The four limits on live tokens, exact under a rush, and the counters of what was refused.
#include <atomic>
#include <thread>

#include "unit/token_world.hpp"

namespace odx::test {
namespace {

constexpr std::uint64_t kMiB = 1 << 20;

void require_limit(const Reply& reply) {
  require_refused(reply, ENOBUFS, ODX_STATUS_INSUFFICIENT_RESOURCES, ODX_REASON_TOKEN_LIMIT);
}

std::uint64_t refused(TokenWorld& world, odx_reason reason) {
  return world.core().counters.refused[reason].load();
}

TEST_CASE("each of the four limits is a limit for everybody, root included", "[token][limit]") {
  const std::uint32_t uid = GENERATE(0U, 1000U);
  const std::uint32_t other = uid + 1;
  struct Case {
    const char* what;
    TokenOptions limits;
    bool of_user;
  };
  // Four tokens of a MiB reach each of them.
  const Case limit = GENERATE(Case{"tokens of a user", {.max_per_uid = 4}, true},
                              Case{"tokens in all", {.max_total = 4}, false},
                              Case{"bytes of a user", {.max_pinned_bytes_per_uid = 4 * kMiB}, true},
                              Case{"bytes in all", {.max_pinned_bytes = 4 * kMiB}, false});
  CAPTURE(uid, limit.what);
  TokenWorld world({.tokens = limit.limits});
  const InodeNo source = world.file("s", pattern(kMiB, 1));
  const InodeNo target = world.file("t", pattern(kMiB, 2));
  std::vector<odx_token> held;
  for (int i = 0; i < 4; ++i) {
    held.push_back(world.token(source, 0, kMiB, 0, 0, user(uid)));
  }
  const auto full = [&] {
    require_limit(world.read(source, 0, kMiB, user(uid)));
    REQUIRE(world.tokens().live() == 4);
    REQUIRE(world.records(keys::kToken) == 4);
    // Whoever has room has it, and what was granted is good.
    if (!limit.of_user) {
      require_limit(world.read(source, 0, kMiB, user(other)));
    }
    for (const odx_token& token : held) {
      REQUIRE(world.write(target, 0, kMiB, token).error == 0);
    }
  };
  full();
  world.reopen();
  full();
  if (limit.of_user) {
    ok(world.tokens().drop(id_of(world.token(source, 0, kMiB, 0, 0, user(other))), other));
  }
  // A place that becomes free is a place for one.
  ok(world.tokens().drop(id_of(held.back()), uid));
  held.back() = world.token(source, 0, kMiB, 0, 0, user(uid));
  full();
  world.close();
}

TEST_CASE("limits of bytes count data, to the byte", "[token][limit]") {
  TokenWorld world({.tokens = {.max_pinned_bytes_per_uid = 8192, .max_pinned_bytes = 12288}});
  const InodeNo source = world.file("s", pattern(8192, 1));
  world.truncate(source, kMiB);  // the rest is a hole
  world.token(source, 4096, kMiB - 4096, 0, 0, user(1));
  require_limit(world.read(source, 0, 8192, user(1)));
  require_limit(world.read(source, 3584, kMiB - 3584, user(1)));
  world.token(source, 0, 4096, 0, 0, user(1));
  require_limit(world.read(source, 0, 512, user(1)));
  // Less than a user may have is left in all.
  require_limit(world.read(source, 0, 8192, user(2)));
  require_limit(world.read(source, 0, 4608, user(2)));
  world.token(source, 0, 4096, 0, 0, user(2));
  require_limit(world.read(source, 0, 512, user(3)));
  REQUIRE(world.tokens().pinned_bytes() == 12288);
  world.close();
}

// 8 EiB of a file are a few blocks, cloned 50 times.
TEST_CASE("nobody can use up 64 bits of pinned bytes", "[token][limit]") {
  TokenWorld world;
  const InodeNo source = world.file("s", pattern(kMiB, 1));
  for (std::uint64_t bytes = kMiB; bytes <= 1ULL << 61; bytes *= 2) {
    ok(world.store().files().copy_range(source, FileOffset(0), source, FileOffset(bytes), bytes));
  }
  constexpr std::uint64_t kHuge = 1ULL << 62;
  REQUIRE(world.inode(source).size() == kHuge);
  for (int i = 0; i < 8; ++i) {
    world.token(source, 0, kHuge, 0, 0, user(1000));
  }
  REQUIRE(world.tokens().pinned_bytes() == UINT64_MAX);
  world.token(source, 0, kMiB, 0, 0, user(1001));
  world.reopen();
  world.token(source, 0, kMiB, 0, 0, user(1001));
  for (const odx_token_info& info : ok(world.tokens().list({}, 100, 1000))) {
    TokenId id;
    std::copy_n(info.id, id.size(), id.begin());
    ok(world.tokens().drop(id, 1000));
  }
  REQUIRE(world.tokens().pinned_bytes() == 2 * kMiB);
  world.set_token_options({.max_pinned_bytes = UINT64_MAX - 1});
  world.reopen();
  for (int i = 0; i < 3; ++i) {
    world.token(world.find("s"), 0, kHuge, 0, 0, user(1000));
  }
  require_limit(world.read(world.find("s"), 0, kHuge, user(1000)));
  world.close();
}

TEST_CASE("every limit is exact under a rush of makers, droppers and time", "[token][limit]") {
  constexpr std::uint64_t kBytes = 8192;
  constexpr std::uint64_t kUserTokens = 7;
  constexpr std::uint64_t kAllTokens = 18;
  constexpr std::uint64_t kUserBytes = 10 * kBytes;
  constexpr std::uint64_t kAllBytes = 15 * kBytes;
  const bool by_bytes = GENERATE(false, true);
  TokenOptions limits{.max_per_uid = kUserTokens, .max_total = kAllTokens};
  if (by_bytes) {
    limits = {.max_pinned_bytes_per_uid = kUserBytes, .max_pinned_bytes = kAllBytes};
  }
  TokenWorld world({.tokens = limits});
  const InodeNo source = world.file("s", pattern(kBytes, 1));
  std::atomic<int> complaints{0};
  std::atomic<int> made{0};
  std::atomic<int> refusals{0};
  std::vector<std::thread> crew;
  for (std::uint32_t uid = 0; uid < 4; ++uid) {
    crew.emplace_back([&, uid] {
      std::vector<TokenId> mine;
      for (unsigned i = 0; i < 150; ++i) {
        odx_offload call = TokenWorld::read_call(0, kBytes, i % 3 == 0 ? 5 : 50'000);
        const int error = world.tokens().offload_read(source, user(uid), call);
        if (error == 0) {
          ++made;
          mine.push_back(id_of(call.body.read_out.token));
        } else if (error == ENOBUFS && call.b.reason == ODX_REASON_TOKEN_LIMIT) {
          ++refusals;
        } else {
          ++complaints;
        }
        if (i % 4 == 3 && !mine.empty()) {
          const auto dropped = world.tokens().drop(mine.back(), uid);
          complaints += dropped || dropped.error().errno_value() == ENOENT ? 0 : 1;
          mine.pop_back();
        }
      }
    });
  }
  crew.emplace_back([&] {
    for (int i = 0; i < 200; ++i) {
      world.advance_ms(1);
      complaints += world.tokens().expire() ? 0 : 1;
    }
  });
  crew.emplace_back([&] {
    for (int i = 0; i < 300; ++i) {
      const std::uint64_t live = world.tokens().live();
      const std::uint64_t bytes = world.tokens().pinned_bytes();
      complaints += live > kAllTokens || (by_bytes && bytes > kAllBytes) ? 1 : 0;
    }
  });
  for (std::thread& thread : crew) {
    thread.join();
  }
  REQUIRE(complaints == 0);
  REQUIRE(made > 0);
  REQUIRE(refused(world, ODX_REASON_TOKEN_LIMIT) == static_cast<std::uint64_t>(refusals));
  REQUIRE(world.tokens().usage().most_live() <= (by_bytes ? 15 : kAllTokens));

  // What is left of each limit can be had, and not one more: no room was lost in the rush.
  const auto in_all = [&] { return world.tokens().live(); };
  const auto of_user = [&](std::uint32_t uid) {
    std::uint64_t count = 0;
    for (const odx_token_info& info : ok(world.tokens().list({}, 1'000, 0))) {
      count += info.uid == uid ? 1 : 0;
    }
    return count;
  };
  ok(world.tokens().expire());
  for (std::uint32_t uid = 0; uid < 4; ++uid) {
    while (world.read(source, 0, kBytes, user(uid)).error == 0) {
    }
    const bool of_user_reached = of_user(uid) == (by_bytes ? 10 : kUserTokens);
    const bool in_all_reached = in_all() == (by_bytes ? 15 : kAllTokens);
    REQUIRE((of_user_reached || in_all_reached));
  }
  REQUIRE(in_all() == (by_bytes ? 15 : kAllTokens));
  world.close();
}

TEST_CASE("a refusal at a limit neither waits for the mutation lock nor hides expired tokens",
          "[token][limit]") {
  TokenWorld world({.tokens = {.max_per_uid = 2}});
  const InodeNo source = world.file("s", pattern(4096, 1));
  const odx_token token = world.token(source, 0, 4096, 0, 0, user(1));
  world.token(source, 0, 4096, 1'000, 0, user(1));
  {
    // Would not return if any of these took it.
    const Mutation held = ok(Mutation::begin(world.core()));
    require_limit(world.read(source, 0, 4096, user(1)));
    REQUIRE(world.tokens().drop(id_of(token), 2).error().errno_value() == EPERM);
    REQUIRE(world.tokens().drop(TokenId{7}, 1).error().errno_value() == ENOENT);
    REQUIRE(ok(world.tokens().list({}, 16, 1)).size() == 2);
    odx_token forged = token;
    forged.id[60] ^= 1;
    REQUIRE(world.write(source, 0, 4096, forged).error == EKEYREJECTED);
  }
  world.advance_ms(1'000);
  world.token(source, 0, 4096, 0, 0, user(1));
  require_limit(world.read(source, 0, 4096, user(1)));
  world.close();
}

TEST_CASE("a READ at a limit clears away no more than it needs", "[token][limit]") {
  TokenWorld world({.tokens = {.max_per_uid = 1'000}});
  const InodeNo source = world.file("s", pattern(4096, 1));
  for (int i = 0; i < 1'000; ++i) {
    world.token(source, 0, 4096, 1'000);
  }
  world.advance_ms(1'000);
  const TxnSeq before = world.core().meta->committed();
  world.token(source, 0, 4096);
  REQUIRE(world.core().meta->committed() - before == 2);
  world.close();
}

TEST_CASE("refusals are counted by reason, for both controls", "[token][counters]") {
  TokenWorld world({.tokens = {.max_per_uid = 2}});
  const InodeNo file = world.file("a", pattern(8192, 1));
  const odx_token token = world.token(file, 0, 4096);
  std::array<std::uint64_t, ODX_REASON_SLOTS> expected{};
  const auto count = [&](const Reply& reply) {
    REQUIRE(reply.error != 0);
    ++expected.at(reply.reason());
  };
  count(world.read(file, 1, 512));
  count(world.read(file, 0, 100));
  count(world.read(file, 8192, 512));
  count(world.read(file, 0, 512, {.uid = 1, .readable = false, .writable = true}));
  count(world.read(kRootInode, 0, 512));
  count(world.read(file, TokenWorld::read_call(0, 512, 0, 2)));
  world.token(file, 0, 4096);
  count(world.read(file, 0, 4096));
  count(world.read(file, 0, 4096));
  count(world.write(file, 1, 512, token));
  count(world.write(file, 8192, 512, token));
  count(world.write(file, 0, 512, token, 4096));
  count(world.write(file, 0, 512, odx_token{}));
  odx_token other = token;
  other.id[70] ^= 1;  // in the padding
  count(world.write(file, 0, 512, other));
  other = token;
  other.id[40] ^= 1;  // in the secret
  count(world.write(file, 0, 512, other));
  other = token;
  other.id[4] ^= 1;  // in the store's uuid
  count(world.write(file, 0, 512, other));
  other = proto::zero_token();
  other.type[3] = 2;
  count(world.write(file, 0, 512, other));
  world.advance_ms(60'000);
  count(world.write(file, 0, 512, token));
  // An error of the store's own.
  count(world.read(InodeNo(4711), 0, 512));
  REQUIRE(world.read(file, 0, 0).error == 0);
  REQUIRE(world.write(file, 0, 512, proto::zero_token()).error == 0);
  for (std::size_t reason = 0; reason < ODX_REASON_SLOTS; ++reason) {
    CAPTURE(reason);
    REQUIRE(world.core().counters.refused[reason].load() == expected[reason]);
  }
  REQUIRE(expected[ODX_REASON_NONE] == 0);
  REQUIRE(std::count_if(expected.begin(), expected.end(), [](auto n) { return n > 0; }) >= 14);
  world.close();
}

TEST_CASE("dropped tokens are counted, and the most that there ever were", "[token][counters]") {
  TokenWorld world;
  const InodeNo file = world.file("a", pattern(8192, 1));
  const TokenUsage* usage = &world.tokens().usage();
  REQUIRE(usage->most_live() == 0);
  const odx_token first = world.token(file, 0, 4096, 1'000);
  const odx_token second = world.token(file, 0, 8192);
  world.token(file, 0, 512);
  REQUIRE(usage->most_live() == 3);
  REQUIRE(usage->most_pinned_bytes() == 4096 + 8192 + 512);
  ok(world.tokens().drop(id_of(second), 0));
  REQUIRE(world.tokens().drop(id_of(second), 0).error().errno_value() == ENOENT);
  world.advance_ms(1'000);
  ok(world.tokens().expire());
  REQUIRE(world.core().counters.tokens_dropped.load() == 1);
  REQUIRE(world.core().counters.tokens_expired.load() == 1);
  world.token(file, 0, 512);
  REQUIRE(usage->live() == 2);
  REQUIRE(usage->most_live() == 3);
  REQUIRE(usage->most_pinned_bytes() == 4096 + 8192 + 512);
  static_cast<void>(first);
  // What a refused READ would have pinned was never there.
  world.set_token_options({.max_per_uid = 2});
  world.reopen();
  usage = &world.tokens().usage();
  require_limit(world.read(file, 0, 8192));
  REQUIRE(usage->most_live() == 2);
  REQUIRE(usage->most_pinned_bytes() == 1024);
  world.close();
}

}  // namespace
}  // namespace odx::test
