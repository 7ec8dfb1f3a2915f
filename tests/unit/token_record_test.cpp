// The token record's value and keys, and the counts behind the limits: no store needed.
#include <rapidcheck.h>
#include <catch2/catch.hpp>

#include "store/meta/keys.hpp"
#include "store/token/token_record.hpp"
#include "store/token/tokens.hpp"

namespace odx {
namespace {

TokenRecord sample() {
  TokenRecord record;
  record.id.fill(7);
  record.secret.fill(9);
  record.uid = 1000;
  record.created_ns = 1'000;
  record.last_used_ns = 2'000;
  record.due_ns = 3'000;
  record.ttl_ms = 60'000;
  record.span = 8192;
  record.data_length = 8000;
  record.tree.extents = {TreeEntry::data(PhysAddr(4096), 4096), TreeEntry::hole(3904)};
  return record;
}

void require_same(const TokenRecord& a, const TokenRecord& b) {
  REQUIRE(a.id == b.id);
  REQUIRE(a.encode() == b.encode());
  REQUIRE(a.tree == b.tree);
}

TEST_CASE("a record survives its encoding", "[token]") {
  rc::check([](const TokenId& id, const proto::TokenSecret& secret, std::uint32_t uid,
               std::uint16_t extents_seed, bool tombstone) {
    TokenRecord record = sample();
    record.id = id;
    record.secret = secret;
    record.uid = uid;
    record.tree = {};
    record.data_length = 0;
    for (unsigned i = 0; i <= extents_seed % kInlineExtents; ++i) {
      const std::uint64_t bytes = 512 * (1 + (extents_seed >> i) % 9);
      record.tree.extents.push_back(i % 2 == 0
                                        ? TreeEntry::data(PhysAddr(1'000'000 * (i + 1)), bytes)
                                        : TreeEntry::hole(bytes));
      record.data_length += bytes;
    }
    record.span = record.data_length + 100;
    if (tombstone) {
      record.state = TokenRecord::State::kExpired;
      record.tree = {};
    }
    const Result<TokenRecord> back = TokenRecord::decode(id, record.encode());
    RC_ASSERT(back.has_value());
    RC_ASSERT(back->encode() == record.encode());
    RC_ASSERT(back->tree == record.tree);
    RC_ASSERT(back->secret == secret);
    RC_ASSERT(back->live() == !tombstone);
  });
}

TEST_CASE("keys name the record and its time", "[token]") {
  const TokenRecord record = sample();
  REQUIRE(token_id_of_key(record.key()).value() == record.id);
  const TokenDue due = token_due_of_key(record.expiry_key()).value();
  REQUIRE(due.id == record.id);
  REQUIRE(due.due_ns == 3'000);

  REQUIRE_FALSE(token_id_of_key(record.expiry_key()).has_value());
  REQUIRE_FALSE(token_id_of_key("T").has_value());
  REQUIRE_FALSE(token_due_of_key(record.key()).has_value());
  REQUIRE_FALSE(token_due_of_key(record.expiry_key() + 'x').has_value());
  REQUIRE_FALSE(
      token_due_of_key(keys::token_expiry(std::uint64_t{1} << 63, record.id)).has_value());
}

TEST_CASE("due times sort as keys", "[token]") {
  TokenRecord sooner = sample();
  TokenRecord later = sample();
  sooner.due_ns = 255;
  sooner.id.fill(0xFF);
  later.due_ns = 256;
  later.id.fill(0);
  REQUIRE(sooner.expiry_key() < later.expiry_key());
}

TEST_CASE("a record is alive until it is due", "[token]") {
  TokenRecord record = sample();
  REQUIRE(record.alive(2'999));
  REQUIRE_FALSE(record.alive(3'000));
  record.state = TokenRecord::State::kExpired;
  REQUIRE_FALSE(record.alive(2'999));
}

TEST_CASE("bytes that no record has are refused", "[token]") {
  const TokenRecord good = sample();
  require_same(TokenRecord::decode(good.id, good.encode()).value(), good);
  const auto refused = [&](const std::string& bytes) {
    const Result<TokenRecord> record = TokenRecord::decode(good.id, bytes);
    return !record && record.error().is_corruption();
  };

  SECTION("truncated or longer") {
    const std::string bytes = good.encode();
    for (std::size_t n = 0; n < bytes.size(); ++n) {
      CAPTURE(n);
      REQUIRE(refused(bytes.substr(0, n)));
    }
    REQUIRE(refused(bytes + '\0'));
  }
  SECTION("another version or state") {
    std::string bytes = good.encode();
    bytes[0] = 2;
    REQUIRE(refused(bytes));
    bytes = good.encode();
    bytes[1] = 2;
    REQUIRE(refused(bytes));
    bytes[1] = 1;  // a tombstone with a rope
    REQUIRE(refused(bytes));
  }
  SECTION("fields that contradict each other") {
    const auto with = [&](auto change) {
      TokenRecord record = good;
      change(record);
      return refused(record.encode());
    };
    REQUIRE(with([](TokenRecord& r) { r.created_ns = -1; }));
    REQUIRE(with([](TokenRecord& r) { r.last_used_ns = r.created_ns - 1; }));
    REQUIRE(with([](TokenRecord& r) { r.due_ns = -1; }));
    REQUIRE(with([](TokenRecord& r) { r.ttl_ms = 0; }));
    REQUIRE(with([](TokenRecord& r) { r.ttl_ms = kLongestTtlMs + 1; }));
    REQUIRE(with([](TokenRecord& r) { r.span = 0; }));
    REQUIRE(with([](TokenRecord& r) { r.span = r.data_length - 1; }));
    REQUIRE(with([](TokenRecord& r) { r.data_length += 1; }));  // not what the rope holds
    REQUIRE(with([](TokenRecord& r) { r.tree = {}; }));
  }
}

TEST_CASE("counts never pass a limit", "[token]") {
  TokenUsage usage;
  TokenOptions limits;
  limits.max_per_uid = 2;
  limits.max_total = 3;
  limits.max_pinned_bytes = 100;
  const auto admit = [&](std::uint32_t uid, std::uint64_t bytes) {
    TokenUsage::Admission admission = usage.admit(uid, bytes, limits);
    const bool in = static_cast<bool>(admission);
    admission.keep();
    return in;
  };

  SECTION("of one user, of all") {
    REQUIRE(admit(1, 0));
    REQUIRE(admit(1, 0));
    REQUIRE_FALSE(admit(1, 0));
    REQUIRE(admit(2, 0));
    REQUIRE_FALSE(admit(3, 0));
    usage.remove_live(1, 0);
    REQUIRE(admit(3, 0));
    REQUIRE(usage.live() == 3);
  }
  SECTION("of bytes") {
    REQUIRE(admit(1, 60));
    REQUIRE_FALSE(admit(1, 41));
    REQUIRE_FALSE(admit(1, UINT64_MAX));
    REQUIRE(admit(1, 40));
    REQUIRE(usage.pinned_bytes() == 100);
  }
  SECTION("that were lowered since") {
    for (int i = 0; i < 5; ++i) {
      usage.add_live(1, 50);
    }
    REQUIRE_FALSE(admit(2, 0));
    REQUIRE(usage.pinned_bytes() == 250);
  }
  SECTION("an admission that is not kept is given back") {
    {
      const TokenUsage::Admission admission = usage.admit(1, 100, limits);
      REQUIRE(static_cast<bool>(admission));
      REQUIRE(usage.live() == 1);
      REQUIRE_FALSE(admit(2, 1));
    }
    REQUIRE(usage.live() == 0);
    REQUIRE(usage.pinned_bytes() == 0);
  }
  SECTION("tombstones of one user do not fill the table") {
    for (int i = 0; i < 100'000; ++i) {
      usage.add_tombstone(1);
    }
    REQUIRE_FALSE(admit(1, 0));
    REQUIRE(admit(2, 0));
    usage.remove_tombstone(1);
    REQUIRE(admit(1, 0));
  }
  SECTION("tombstones do not count") {
    REQUIRE(admit(1, 10));
    REQUIRE(admit(1, 10));
    usage.live_to_tombstone(1, 10);
    REQUIRE(usage.live() == 1);
    REQUIRE(usage.tombstones() == 1);
    REQUIRE(usage.pinned_bytes() == 10);
    REQUIRE(admit(1, 10));
    usage.remove_tombstone(1);
    REQUIRE(usage.tombstones() == 0);
  }
}

}  // namespace
}  // namespace odx
