// Tokens and clocks that misbehave: set back, set forward, at the ends of time.
#include <rapidcheck.h>

#include "unit/token_world.hpp"

namespace odx::test {
namespace {

constexpr std::int64_t kHourMs = 3'600'000;
constexpr std::int64_t kYearMs = 365 * 24 * kHourMs;

void require_expired(const Reply& reply) {
  require_refused(reply, EKEYEXPIRED, ODX_STATUS_INVALID_TOKEN, ODX_REASON_TOKEN_EXPIRED);
}

TEST_CASE("token time goes as the clock goes, but never back", "[token][time]") {
  ManualClock clock(1'000);
  TokenTime time;
  REQUIRE(time.now_ns(clock) == 1'000);
  clock.advance_ns(50);
  REQUIRE(time.now_ns(clock) == 1'050);
  clock.advance_ns(-700);  // to 350
  REQUIRE(time.now_ns(clock) == 1'050);
  clock.advance_ns(10);
  REQUIRE(time.now_ns(clock) == 1'060);
  REQUIRE(time.on_the_wall(1'060) == 360);
  REQUIRE(time.on_the_wall(100) == 0);
  time.not_before(clock, 900);
  REQUIRE(time.now_ns(clock) == 1'060);
  time.not_before(clock, 5'000);
  REQUIRE(time.now_ns(clock) == 5'000);
  clock.advance_ns(-10'000);  // before 1970
  REQUIRE(time.now_ns(clock) == 5'000);
  clock.advance_ns(9'641);  // to 1
  REQUIRE(time.now_ns(clock) == 5'001);
  clock.advance_ns(INT64_MAX - 1);
  REQUIRE(time.now_ns(clock) == INT64_MAX);
  REQUIRE(later(INT64_MAX - 1, 5) == INT64_MAX);
  REQUIRE(later(5, INT64_MAX) == INT64_MAX);
  REQUIRE(later(5, 6) == 11);
}

TEST_CASE("a clock that is set back neither prolongs nor ends a token", "[token][time]") {
  const std::int64_t step_ms =
      GENERATE(as<std::int64_t>{}, 1, 5'000, kHourMs, 30 * kYearMs, 60 * kYearMs /* before 1970 */);
  CAPTURE(step_ms);
  TokenWorld world;
  const InodeNo ino = world.file("a", pattern(8192, 1));
  const odx_token token = world.token(ino, 0, 4096, 10'000);
  world.advance_ms(4'000);
  ok(world.tokens().expire());

  world.advance_ms(-step_ms);
  REQUIRE(ok(world.tokens().expire()) == 6'000 * kNsPerMs);
  const auto shown = ok(world.tokens().list({}, 1, 0)).at(0);
  if (world.clock().now_ns() >= 0) {
    REQUIRE(shown.expires_ns - world.clock().now_ns() == 6'000 * kNsPerMs);
  }
  // A token made now has its TTL, no more.
  const odx_token young = world.token(ino, 0, 4096, 10'000);

  SECTION("on its own") {
    if (step_ms == 60 * kYearMs) {
      world.clock().advance_ns(-world.clock().now_ns());  // time stands still before 1970
    }
    world.advance_ms(5'999);
    REQUIRE(world.write(ino, 4096, 512, proto::zero_token()).error == 0);
    REQUIRE(world.tokens().live() == 2);
    world.advance_ms(1);
    require_expired(world.write(ino, 4096, 512, token));
    REQUIRE(ok(world.tokens().expire()) == 4'000 * kNsPerMs);
    world.advance_ms(4'000);
    require_expired(world.write(ino, 4096, 512, young));
    world.advance_ms(55'999);
    ok(world.tokens().expire());
    require_expired(world.write(ino, 4096, 512, token));
    world.advance_ms(4'001);
    ok(world.tokens().expire());
    ok(world.tokens().expire());
    REQUIRE(world.records(keys::kToken) == 1);  // the younger tombstone
    world.advance_ms(60'000);
    ok(world.tokens().expire());
    REQUIRE(world.records(keys::kToken) == 0);
  }
  SECTION("over a remount") {
    world.reopen();
    // Time goes on from the latest that a record tells of, here `young`.
    if (step_ms != 60 * kYearMs) {
      REQUIRE(ok(world.tokens().expire()) == 6'000 * kNsPerMs);
      world.advance_ms(6'000);
      require_expired(world.write(ino, 4096, 512, token));
      REQUIRE(world.write(ino, 4096, 512, young).error == 0);
    }
  }
  world.close();
}

TEST_CASE("a clock that is set back while the store is closed", "[token][time]") {
  TokenWorld world;
  const InodeNo ino = world.file("a", pattern(8192, 1));
  const odx_token ended = world.token(ino, 0, 4096, 1'000);
  world.advance_ms(1'000);
  ok(world.tokens().expire());
  const odx_token token = world.token(ino, 0, 4096, 20'000);
  world.advance_ms(5'000);
  world.close();
  world.advance_ms(-kYearMs);
  world.open();
  // At most a whole TTL is left of it, not a year.
  REQUIRE(ok(world.tokens().expire()) == 20'000 * kNsPerMs);
  world.advance_ms(20'000);
  require_expired(world.write(ino, 4096, 512, token));
  require_expired(world.write(ino, 4096, 512, ended));
  world.advance_ms(120'000);
  ok(world.tokens().expire());
  world.advance_ms(60'000);
  ok(world.tokens().expire());
  REQUIRE(world.records(keys::kToken) == 0);
  REQUIRE(world.records(keys::kTokenExpiry) == 0);
  world.close();
}

TEST_CASE("a clock that is set forward is time that has passed", "[token][time]") {
  TokenWorld world;
  const InodeNo ino = world.file("a", pattern(8192, 1));
  const odx_token token = world.token(ino, 0, 4096);
  world.advance_ms(kYearMs);
  require_expired(world.write(ino, 4096, 512, token));
  ok(world.tokens().expire());
  const odx_token young = world.token(ino, 0, 4096);
  world.advance_ms(-kYearMs);  // the mistake is put right
  REQUIRE(world.write(ino, 4096, 512, young).error == 0);
  require_expired(world.write(ino, 4096, 512, token));
  world.advance_ms(60'000);
  require_expired(world.write(ino, 4096, 512, young));
  world.close();
}

TEST_CASE("due times do not overflow at the end of time", "[token][time]") {
  TokenWorld world({.tokens = {.ttl_default_ms = UINT64_MAX, .ttl_max_ms = UINT64_MAX}});
  const InodeNo ino = world.file("a", pattern(8192, 1));
  world.clock().advance_ns(INT64_MAX - world.clock().now_ns() - 1'000);
  const odx_token token = world.token(ino, 0, 4096);
  REQUIRE(world.write(ino, 4096, 512, token).error == 0);
  REQUIRE(ok(world.tokens().expire()) == 1'000);
  world.clock().advance_ns(1'000);
  require_expired(world.write(ino, 4096, 512, token));
  // There is no minute left for a tombstone.
  ok(world.tokens().expire());
  REQUIRE(world.records(keys::kToken) == 0);
  REQUIRE(world.records(keys::kTokenExpiry) == 0);
  world.close();
}

TEST_CASE("a clock at the beginning of time", "[token][time]") {
  TokenWorld world;
  const InodeNo ino = world.file("a", pattern(8192, 1));
  world.clock().advance_ns(-world.clock().now_ns() - 5);
  const odx_token token = world.token(ino, 0, 4096, 1'000);
  REQUIRE(world.write(ino, 4096, 512, token).error == 0);
  world.reopen();
  REQUIRE(world.write(ino, 4096, 512, token).error == 0);
  world.clock().advance_ns(5 + 1'000 * kNsPerMs);
  require_expired(world.write(ino, 4096, 512, token));
  world.close();
}

}  // namespace
}  // namespace odx::test
