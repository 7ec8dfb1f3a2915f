// The life of tokens: timers, tombstones, dropping, listing, limits, crashes.
#include <algorithm>

#include "unit/token_world.hpp"

namespace odx::test {
namespace {

void require_expired(const Reply& reply) {
  require_refused(reply, EKEYEXPIRED, ODX_STATUS_INVALID_TOKEN, ODX_REASON_TOKEN_EXPIRED);
}
void require_unknown(const Reply& reply) {
  require_refused(reply, EKEYREJECTED, ODX_STATUS_INVALID_TOKEN, ODX_REASON_TOKEN_UNKNOWN);
}
void require_limit(const Reply& reply) {
  require_refused(reply, ENOBUFS, ODX_STATUS_INSUFFICIENT_RESOURCES, ODX_REASON_TOKEN_LIMIT);
}

TEST_CASE("a token expires, is remembered for a minute, then forgotten", "[token]") {
  TokenWorld world;
  const InodeNo source = world.file("s", pattern(4096, 1));
  const InodeNo ino = world.file("d", pattern(4096, 2));
  REQUIRE_FALSE(ok(world.tokens().expire()).has_value());
  const odx_token token = world.token(source, 0, 4096, 5'000);

  REQUIRE(ok(world.tokens().expire()) == 5'000 * kNsPerMs);
  world.clock().advance_ns(5'000 * kNsPerMs - 1);
  REQUIRE(ok(world.tokens().expire()) == 1);
  REQUIRE(world.tokens().live() == 1);
  world.clock().advance_ns(1);
  // The time decides, not whether expire() came by.
  require_expired(world.write(ino, 0, 4096, token));
  REQUIRE(world.tokens().live() == 1);
  REQUIRE(ok(world.tokens().expire()) == 60'000 * kNsPerMs);
  REQUIRE(world.tokens().live() == 0);
  REQUIRE(world.tokens().pinned_bytes() == 0);
  REQUIRE(world.core().counters.tokens_expired.load() == 1);
  require_expired(world.write(ino, 0, 4096, token));

  // Only who held it is told.
  proto::TokenFields forged = proto::decode(token).value();
  forged.secret[31] ^= 1;
  require_unknown(world.write(ino, 0, 4096, proto::encode_token(forged)));

  world.advance_ms(59'999);
  REQUIRE(ok(world.tokens().expire()).has_value());
  require_expired(world.write(ino, 0, 4096, token));
  world.reopen();
  require_expired(world.write(ino, 0, 4096, token));
  world.advance_ms(1);
  REQUIRE_FALSE(ok(world.tokens().expire()).has_value());
  require_unknown(world.write(ino, 0, 4096, token));
  REQUIRE(world.records(keys::kToken) == 0);
  REQUIRE(world.records(keys::kTokenExpiry) == 0);
  world.close();
}

TEST_CASE("a token that expired while the store was closed", "[token]") {
  TokenWorld world;
  const InodeNo ino = world.file("a", pattern(4096, 1));
  const odx_token token = world.token(ino, 0, 4096);
  world.close();
  world.advance_ms(24 * 3'600'000);
  world.open();
  require_expired(world.write(ino, 0, 4096, token));
  ok(world.tokens().expire());
  require_expired(world.write(ino, 0, 4096, token));
  world.close();
}

TEST_CASE("the timer is one of inactivity", "[token]") {
  TokenWorld world;
  const InodeNo ino = world.file("a", pattern(8192, 1));
  const odx_token token = world.token(ino, 0, 4096, 10'000);
  const auto expires_in_ms = [&] {
    return (ok(world.tokens().list({}, 1, 0)).at(0).expires_ns - world.clock().now_ns()) / kNsPerMs;
  };

  SECTION("a WRITE that moves something restarts it") {
    for (int i = 0; i < 5; ++i) {
      world.advance_ms(9'000);
      ok(world.tokens().expire());
      REQUIRE(world.write(ino, 4096, 512, token).error == 0);
      REQUIRE(expires_in_ms() == 10'000);
      REQUIRE(world.records(keys::kTokenExpiry) == 1);
    }
    world.advance_ms(10'000);
    require_expired(world.write(ino, 4096, 512, token));
  }
  SECTION("a WRITE that moves nothing does not") {
    world.advance_ms(9'000);
    REQUIRE(world.write(ino, 0, 0, token).error == 0);
    REQUIRE(world.write(ino, 1 << 20, 512, token).error == ENXIO);
    REQUIRE(world.write(ino, 0, 512, token, 4096).error == EINVAL);
    REQUIRE(expires_in_ms() == 1'000);
  }
  SECTION("it is journalled once a second at most") {
    const auto record = [&] { return ok(world.core().meta->scan("T", "U", 1)).at(0).value; };
    const std::string before = record();
    world.advance_ms(999);
    REQUIRE(world.write(ino, 4096, 512, token).error == 0);
    REQUIRE(record() == before);
    world.advance_ms(1);
    REQUIRE(world.write(ino, 4096, 512, token).error == 0);
    REQUIRE(record() != before);
    REQUIRE(expires_in_ms() == 10'000);
  }
  SECTION("a short one stays alive too") {
    const odx_token brief = world.token(ino, 0, 4096, 400);
    for (int i = 0; i < 10; ++i) {
      world.advance_ms(300);
      REQUIRE(world.write(ino, 4096, 512, brief).error == 0);
    }
  }
  SECTION("a clock that is set back does not change it") {
    world.clock().advance_ns(-5'000 * kNsPerMs);
    REQUIRE(world.write(ino, 4096, 512, token).error == 0);
    REQUIRE(expires_in_ms() == 10'000);
  }
  SECTION("a stale expiry record does no harm") {
    // As if the due time had moved on without its `Y` record.
    {
      Mutation mutation = ok(Mutation::begin(world.core()));
      const KeyValue due = ok(mutation.kv().scan("Y", "Z", 1)).at(0);
      mutation.kv().erase(due.key);
      TokenDue entry = token_due_of_key(due.key).value();
      mutation.kv().put(keys::token_expiry(static_cast<std::uint64_t>(kStartNs), entry.id), {});
      mutation.kv().put(keys::token_expiry(1, TokenId{1, 2, 3}), {});  // of no token at all
      ok(mutation.commit());
    }
    REQUIRE(ok(world.tokens().expire()) == 10'000 * kNsPerMs);
    REQUIRE(world.records(keys::kTokenExpiry) == 1);
    REQUIRE(world.tokens().live() == 1);
  }
  world.close();
}

TEST_CASE("expiry gives the space back", "[token]") {
  TokenWorld world;
  const InodeNo keeper = world.file("keeper", pattern(64 << 10, 7));
  world.settle();
  const std::uint64_t free_before = world.free_blocks();
  const std::string bytes = pattern(4 << 20, 1);
  const bool fragmented = GENERATE(false, true);
  const InodeNo ino = world.file("a", bytes);
  if (fragmented) {
    for (std::uint64_t at = 0; at < bytes.size(); at += 64 << 10) {
      world.write_bytes(ino, at, pattern(4096, 2));
    }
  }
  const odx_token first = world.token(ino, 0, 4 << 20, 1'000);
  world.token(ino, 1 << 20, 2 << 20, 2'000);
  world.remove("a");
  world.settle();
  REQUIRE(world.tokens().pinned_bytes() == 6 << 20);
  REQUIRE(world.free_blocks() == free_before - (4 << 20) / kBlockBytes);

  world.advance_ms(1'000);
  ok(world.tokens().expire());
  world.settle();
  REQUIRE(world.tokens().pinned_bytes() == 2 << 20);
  REQUIRE(world.free_blocks() == free_before - (2 << 20) / kBlockBytes);

  world.advance_ms(1'000);
  ok(world.tokens().expire());
  world.settle();
  REQUIRE(world.free_blocks() == free_before);
  require_expired(world.write(keeper, 0, 4096, first));
  world.close();
}

TEST_CASE("a token with a damaged rope does not keep the others alive", "[token]") {
  TokenWorld world;
  const InodeNo ino = world.file("a", pattern(1 << 20, 1));
  for (std::uint64_t at = 0; at < 1 << 20; at += 64 << 10) {
    world.write_bytes(ino, at, pattern(4096, 2));
  }
  const odx_token damaged = world.token(ino, 0, 1 << 20, 1'000);
  const odx_token whole = world.token(ino, 4096, 4096, 1'000);
  world.token(ino, 4096, 4096, 2'000);
  const std::string refs = keys::node_refs(world.inode(ino).tree.root->id);
  std::string good;
  KeyValue due;
  {
    Mutation mutation = ok(Mutation::begin(world.core()));
    good = ok(mutation.kv().get(refs)).value();
    for (const KeyValue& kv : ok(mutation.kv().scan("Y", "Z", 10))) {
      if (token_due_of_key(kv.key).value().id == id_of(damaged)) {
        due = kv;
      }
    }
    mutation.kv().put(refs, "damage");
    ok(mutation.commit());
  }
  world.advance_ms(1'000);
  REQUIRE(ok(world.tokens().expire()) == 1'000 * kNsPerMs);
  REQUIRE(world.tokens().live() == 2);  // its data is still pinned
  require_expired(world.write(ino, 4096, 512, whole));
  require_expired(world.write(ino, 4096, 512, damaged));
  world.advance_ms(1'000);
  REQUIRE(ok(world.tokens().expire()) == 59'000 * kNsPerMs);
  REQUIRE(world.tokens().live() == 1);
  {
    Mutation mutation = ok(Mutation::begin(world.core()));
    mutation.kv().put(refs, good);
    mutation.kv().put(due.key, due.value);
    ok(mutation.commit());
  }
  world.reopen();  // once it is repaired, it goes as any other
  ok(world.tokens().expire());
  REQUIRE(world.tokens().live() == 0);
  world.close();
}

TEST_CASE("many tokens expire in bounded transactions", "[token]") {
  TokenWorld world;
  const InodeNo ino = world.file("a", pattern(4096, 1));
  for (int i = 0; i < 200; ++i) {
    world.token(ino, 0, 4096, i < 150 ? 1'000 : 5'000);
  }
  world.advance_ms(1'000);
  const TxnSeq before = world.core().meta->committed();
  REQUIRE(ok(world.tokens().expire()) == 4'000 * kNsPerMs);
  REQUIRE(world.core().meta->committed() - before == 3);
  REQUIRE(world.tokens().live() == 50);
  REQUIRE(ok(world.tokens().list({}, 1'000, 0)).size() == 50);
  world.advance_ms(100'000);
  ok(world.tokens().expire());
  REQUIRE(world.tokens().live() == 0);
  REQUIRE(world.records(keys::kToken) == 50);  // tombstones of the second lot
  world.close();
}

TEST_CASE("whoever sleeps until the next token is due hears of an earlier one", "[token]") {
  TokenWorld world;
  const InodeNo ino = world.file("a", pattern(4096, 1));
  const auto woken = [&] {
    return world.core().background_bell.wait_for(std::chrono::nanoseconds(0));
  };
  ok(world.tokens().expire());
  woken();
  world.token(ino, 0, 4096, 10'000);
  REQUIRE(woken());
  world.token(ino, 0, 4096, 20'000);
  REQUIRE(!woken());
  world.token(ino, 0, 4096, 5'000);
  REQUIRE(woken());
  REQUIRE(ok(world.tokens().expire()) == 5'000 * kNsPerMs);
  world.token(ino, 0, 4096, 6'000);
  REQUIRE(!woken());
  world.token(ino, 0, 4096, 4'000);
  REQUIRE(woken());
  world.close();
}

TEST_CASE("tokens are listed in id order, each user's own", "[token]") {
  TokenWorld world;
  const InodeNo ino = world.file("a", pattern(8192, 1));
  world.truncate(ino, 16384);
  for (int i = 0; i < 40; ++i) {
    world.token(ino, 0, 16384, 0, 0, user(i % 2 == 0 ? 1000 : 1001));
  }
  world.token(ino, 0, 4096, 1'000, 0, user(1000));  // will have expired
  world.advance_ms(1'000);

  const auto all_of = [&](std::uint32_t uid, std::size_t page) {
    std::vector<odx_token_info> all;
    TokenId after{};
    while (true) {
      const auto some = ok(world.tokens().list(after, page, uid));
      REQUIRE(some.size() <= page);
      if (some.empty()) {
        return all;
      }
      all.insert(all.end(), some.begin(), some.end());
      std::copy_n(some.back().id, after.size(), after.begin());
    }
  };
  for (const std::size_t page : {1U, 16U, 100U}) {
    REQUIRE(all_of(0, page).size() == 40);
    REQUIRE(all_of(1000, page).size() == 20);
    REQUIRE(all_of(1001, page).size() == 20);
    REQUIRE(all_of(1002, page).empty());
  }
  const auto all = all_of(0, 16);
  REQUIRE(std::is_sorted(all.begin(), all.end(), [](const auto& a, const auto& b) {
    return std::memcmp(a.id, b.id, sizeof a.id) < 0;
  }));
  for (const odx_token_info& info : all) {
    REQUIRE(info.length == 16384);
    REQUIRE(info.data_bytes == 8192);
    REQUIRE(info.created_ns == kStartNs);
    REQUIRE(info.expires_ns == kStartNs + 60 * kNsPerSecond);
    REQUIRE((info.uid == 1000 || info.uid == 1001));
  }
  world.close();
}

TEST_CASE("a dropped token is gone at once", "[token]") {
  TokenWorld world;
  const InodeNo ino = world.file("a", pattern(1 << 20, 1));
  const odx_token token = world.token(ino, 0, 1 << 20, 10'000, 0, user(1000));
  const TokenId id = id_of(token);
  world.truncate(ino, 4096);
  world.settle();
  const std::uint64_t free_before = world.free_blocks();

  REQUIRE(world.tokens().drop(id, 1001).error().errno_value() == EPERM);
  REQUIRE(world.tokens().drop(TokenId{}, 0).error().errno_value() == ENOENT);
  SECTION("by its owner") { ok(world.tokens().drop(id, 1000)); }
  SECTION("by root") { ok(world.tokens().drop(id, 0)); }
  REQUIRE(world.tokens().live() == 0);
  REQUIRE(world.tokens().pinned_bytes() == 0);
  require_unknown(world.write(ino, 0, 4096, token));
  REQUIRE(world.tokens().drop(id, 0).error().errno_value() == ENOENT);
  REQUIRE(world.records(keys::kToken) == 0);
  REQUIRE(world.records(keys::kTokenExpiry) == 0);
  world.settle();
  REQUIRE(world.free_blocks() == free_before + (1 << 20) / kBlockBytes - 1);
  world.close();
}

TEST_CASE("an expired token cannot be dropped, so that its tombstone stays", "[token]") {
  TokenWorld world;
  const InodeNo ino = world.file("a", pattern(4096, 1));
  const odx_token token = world.token(ino, 0, 4096, 1'000);
  world.advance_ms(1'000);
  REQUIRE(world.tokens().drop(id_of(token), 0).error().errno_value() == ENOENT);
  ok(world.tokens().expire());
  REQUIRE(world.tokens().drop(id_of(token), 0).error().errno_value() == ENOENT);
  require_expired(world.write(ino, 0, 4096, token));
  world.close();
}

TEST_CASE("limits refuse the new, and spare the old", "[token]") {
  TokenWorld world;
  const InodeNo ino = world.file("a", pattern(8192, 1));
  const InodeNo hole = world.file("h");
  world.truncate(hole, 8192);

  SECTION("of a user and in total") {
    world.set_token_options({.max_per_uid = 3, .max_total = 5});
    world.reopen();
    const odx_token oldest = world.token(ino, 0, 4096, 0, 0, user(1));
    world.token(ino, 0, 4096, 0, 0, user(1));
    world.token(ino, 0, 4096, 0, 0, user(1));
    require_limit(world.read(ino, 0, 4096, user(1)));
    world.token(ino, 0, 4096, 0, 0, user(2));
    world.token(ino, 0, 4096, 0, 0, user(2));
    require_limit(world.read(ino, 0, 4096, user(3)));
    // What needs no record is not limited.
    REQUIRE(is_zero_token(world.token(hole, 0, 4096, 0, 0, user(3))));

    // As exact after a reopening and a crash.
    world.reopen();
    require_limit(world.read(ino, 0, 4096, user(3)));
    world.sync();
    world.crash();
    REQUIRE(world.tokens().live() == 5);
    require_limit(world.read(ino, 0, 4096, user(3)));
    REQUIRE(world.write(ino, 4096, 4096, oldest).error == 0);

    ok(world.tokens().drop(id_of(oldest), 0));
    world.token(ino, 0, 4096, 0, 0, user(1));
    require_limit(world.read(ino, 0, 4096, user(1)));
  }
  SECTION("of bytes") {
    world.set_token_options({.max_pinned_bytes = 8192});
    world.reopen();
    world.token(ino, 0, 4096);
    world.token(ino, 0, 4096, 1'000);
    require_limit(world.read(ino, 0, 512));
    world.reopen();
    require_limit(world.read(ino, 0, 512));
    world.advance_ms(1'000);
    world.token(ino, 0, 4096);
    require_limit(world.read(ino, 0, 8192));
  }
  SECTION("expired tokens do not count, cleared away or not") {
    world.set_token_options({.max_per_uid = 3});
    world.reopen();
    for (int round = 0; round < 5; ++round) {
      for (int i = 0; i < 3; ++i) {
        world.token(ino, 0, 4096, 1'000);
      }
      require_limit(world.read(ino, 0, 4096));
      world.advance_ms(1'000);
    }
  }
  SECTION("a refused READ leaves nothing") {
    world.set_token_options({.max_per_uid = 0});
    world.reopen();
    require_limit(world.read(ino, 0, 4096));
    REQUIRE(world.tokens().live() == 0);
    REQUIRE(world.records(keys::kToken) == 0);
  }
  world.close();
}

TEST_CASE("odx_token_scope=user binds a token to its maker", "[token]") {
  TokenWorld world;
  const InodeNo ino = world.file("a", pattern(8192, 1));
  const odx_token token = world.token(ino, 0, 4096, 0, 0, user(1000));
  REQUIRE(world.write(ino, 4096, 4096, token, 0, user(1001)).error == 0);
  world.set_token_options({.bind_to_user = true});
  world.reopen();
  for (const std::uint32_t uid : {1001U, 0U}) {
    require_refused(world.write(ino, 4096, 4096, token, 0, user(uid)), EKEYREJECTED,
                    ODX_STATUS_INVALID_TOKEN, ODX_REASON_TOKEN_OTHER_USER);
  }
  REQUIRE(world.write(ino, 4096, 4096, token, 0, user(1000)).error == 0);
  REQUIRE(world.write(ino, 4096, 512, proto::zero_token(), 0, user(1001)).error == 0);
  world.close();
}

TEST_CASE("tokens survive closing always, a crash once durable", "[token]") {
  TokenWorld world;
  const std::string bytes = pattern(64 << 10, 1);
  InodeNo ino = world.file("a", bytes);
  world.sync();

  SECTION("closing") {
    const odx_token token = world.token(ino, 0, bytes.size());
    world.write_bytes(ino, 0, pattern(bytes.size(), 2));
    world.reopen();
    REQUIRE(world.tokens().live() == 1);
    REQUIRE(world.tokens().pinned_bytes() == bytes.size());
    REQUIRE(world.shown(token, bytes.size()) == bytes);
  }
  SECTION("ODX_TOKEN_SYNC and a crash") {
    world.write_bytes(ino, 4096, "not synced by itself");
    const std::string moment = world.content(ino);
    const odx_token token = world.token(ino, 0, bytes.size(), 0, ODX_TOKEN_SYNC);
    world.remove("a");  // not durable
    world.crash();
    REQUIRE(world.tokens().live() == 1);
    REQUIRE(world.tokens().pinned_bytes() == bytes.size());
    REQUIRE(world.shown(token, bytes.size()) == moment);
    // Prefix consistency: what came before the token is there too.
    REQUIRE(world.content(world.find("a")) == moment);
  }
  SECTION("a crash without it: as if the token had never been") {
    const odx_token token = world.token(ino, 0, bytes.size());
    world.crash();
    REQUIRE(world.tokens().live() == 0);
    ino = world.find("a");
    require_unknown(world.write(ino, 0, 4096, token));
    REQUIRE(world.content(ino) == bytes);
  }
  SECTION("an expiry that a crash undoes happens again") {
    const odx_token token = world.token(ino, 0, bytes.size(), 1'000, ODX_TOKEN_SYNC);
    world.advance_ms(1'000);
    ok(world.tokens().expire());
    world.crash();
    REQUIRE(world.tokens().live() == 1);
    require_expired(world.write(world.find("a"), 0, 4096, token));
    ok(world.tokens().expire());
    REQUIRE(world.tokens().live() == 0);
  }
  SECTION("the data of a token whose file is gone, over both") {
    const odx_token token = world.token(ino, 0, bytes.size());
    world.remove("a");
    world.settle();
    world.crash();
    world.write_bytes(world.file("b"), 0, pattern(8 << 20, 3));  // must not hit the token's blocks
    world.sync();
    world.reopen();
    REQUIRE(world.shown(token, bytes.size()) == bytes);
  }
  world.close();
}

}  // namespace
}  // namespace odx::test
