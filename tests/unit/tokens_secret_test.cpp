// What a token that is not quite right is told, and what its refusal costs: the same whatever is
// wrong with it, so that nobody learns how near he is.
#include <algorithm>
#include <map>

#include "unit/token_world.hpp"

namespace odx::test {
namespace {

constexpr std::size_t kStoreAt = 12;
constexpr std::size_t kIdAt = 28;
constexpr std::size_t kSecretAt = 44;
constexpr std::size_t kPaddingAt = 76;

odx_token with_byte(const odx_token& token, std::size_t at, std::uint8_t flip) {
  odx_token other = token;
  reinterpret_cast<std::uint8_t*>(&other)[at] ^= flip;
  return other;
}

TEST_CASE("each byte of a token counts, and all wrong secrets are refused alike",
          "[token][secret]") {
  TokenWorld world({.tokens = {.bind_to_user = GENERATE(false, true)}});
  const std::string bytes = pattern(4096, 1);
  const InodeNo ino = world.file("a", bytes);
  const odx_token live = world.token(ino, 0, 4096, 10'000, 0, user(1000));
  const odx_token expired = world.token(ino, 0, 4096, 1'000, 0, user(1000));
  world.advance_ms(1'000);
  ok(world.tokens().expire());
  const odx_token token = GENERATE_COPY(live, expired);
  CountingMeta& meta = world.count_meta();
  const TxnSeq before = world.core().meta->committed();
  {
    // No refusal waits for the mutation lock.
    const Mutation held = ok(Mutation::begin(world.core()));
    std::map<std::uint64_t, std::size_t> records_asked_for;
    for (std::size_t at = 8; at < sizeof(odx_token); ++at) {
      for (const std::uint8_t flip : {0x01, 0x80, 0xFF}) {
        CAPTURE(at, int{flip});
        meta.take();
        const Reply reply = world.write(ino, 0, 4096, with_byte(token, at, flip), 0, user(1001));
        const CountingMeta::Counts counts = meta.take();
        const bool in_store = at >= kStoreAt && at < kIdAt;
        const bool in_id = at >= kIdAt && at < kSecretAt;
        const bool in_secret = at >= kSecretAt && at < kPaddingAt;
        if (in_store) {
          require_refused(reply, EXDEV, ODX_STATUS_DEVICE_UNREACHABLE, ODX_REASON_TOKEN_FOREIGN);
        } else {
          require_refused(
              reply, EKEYREJECTED, ODX_STATUS_INVALID_TOKEN,
              in_id || in_secret ? ODX_REASON_TOKEN_UNKNOWN : ODX_REASON_TOKEN_MALFORMED);
        }
        if (in_secret) {
          ++records_asked_for[counts.gets + counts.scanned];
        }
      }
    }
    REQUIRE(records_asked_for.size() == 1);
    REQUIRE(records_asked_for.begin()->second == 32 * 3);
  }
  REQUIRE(world.core().meta->committed() == before);
  REQUIRE(world.content(ino) == bytes);
  world.close();
}

// Whose it is, that it has expired, how long it is: for holders only.
TEST_CASE("a wrong secret is told nothing of the token", "[token][secret]") {
  TokenWorld world({.tokens = {.bind_to_user = true}});
  const InodeNo ino = world.file("a", pattern(4096, 1));
  const odx_token token = world.token(ino, 0, 4096, 1'000, 0, user(1000));
  const auto forged = [&](std::uint64_t transfer_offset, std::uint32_t uid) {
    return world.write(ino, 0, 512, with_byte(token, 75, 1), transfer_offset, user(uid));
  };
  const auto unknown = [&] {
    for (const std::uint32_t uid : {0U, 1000U, 1001U}) {
      for (const std::uint64_t transfer_offset : {0U, 4096U}) {
        require_refused(forged(transfer_offset, uid), EKEYREJECTED, ODX_STATUS_INVALID_TOKEN,
                        ODX_REASON_TOKEN_UNKNOWN);
      }
    }
  };
  unknown();
  world.advance_ms(1'000);
  unknown();
  ok(world.tokens().expire());
  unknown();
  world.advance_ms(60'000);
  ok(world.tokens().expire());
  unknown();
  world.close();
}

}  // namespace
}  // namespace odx::test
