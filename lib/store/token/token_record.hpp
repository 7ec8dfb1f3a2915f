// The token record: table `T`, filed under the token's id; and what it says about table `Y`.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.hpp"
#include "base/types.hpp"
#include "proto/token_codec.hpp"
#include "store/extent/tree.hpp"

namespace odx {

// Thirty years: keeps sums of times inside 63 bits, whatever a mount asks for.
inline constexpr std::uint64_t kLongestTtlMs = 1'000'000'000'000;

struct TokenRecord {
  enum class State : std::uint8_t {
    kLive = 0,
    kExpired = 1,  // a tombstone: only says that there was such a token; the rope is gone
  };

  TokenId id{};  // the key; not part of the value
  State state = State::kLive;
  proto::TokenSecret secret{};
  std::uint32_t uid = 0;          // of who made it
  std::int64_t created_ns = 0;    // times are TokenTime's, since 1970, none negative
  std::int64_t last_used_ns = 0;  // made, or redeemed; not before created_ns
  // Live: when it expires. Expired: when the tombstone goes. There is exactly one `Y` record for
  // every `T` record, at this time.
  std::int64_t due_ns = 0;
  std::uint64_t ttl_ms = 0;       // of the inactivity timer, 1 to kLongestTtlMs
  std::uint64_t span = 0;         // bytes that the token stands for, whole sectors, not 0
  std::uint64_t data_length = 0;  // of these, bytes before the source's EOF; the rest are zeros
  Tree tree;                      // live: exactly `data_length` bytes; expired: empty

  [[nodiscard]] bool live() const { return state == State::kLive; }
  // Redeemable at `now_ns`.
  [[nodiscard]] bool alive(std::int64_t now_ns) const { return live() && now_ns < due_ns; }
  // Bytes that the token keeps from being freed, at most: holes do not count.
  [[nodiscard]] std::uint64_t data_bytes() const { return tree.data_bytes(); }

  [[nodiscard]] std::string key() const;
  [[nodiscard]] std::string expiry_key() const;

  [[nodiscard]] std::string encode() const;
  // Corruption if the value is not one that encode() can have made.
  static Result<TokenRecord> decode(const TokenId& id, std::string_view bytes);
};

// The parts of a key of table `T`; corruption if it is not one.
Result<TokenId> token_id_of_key(std::string_view key);

// The parts of a key of table `Y`; corruption if it is not one.
struct TokenDue {
  std::int64_t due_ns;
  TokenId id;
};
Result<TokenDue> token_due_of_key(std::string_view key);

}  // namespace odx
