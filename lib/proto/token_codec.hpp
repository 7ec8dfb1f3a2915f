// The 512 bytes of a token (MS-FSCC 2.1.11; design.md section 7).
//
//   offset  bytes
//        0      4  type, ODX_TOKEN_TYPE_ODXFS, big-endian
//        4      2  reserved, 0
//        6      2  id length, 0x01F8, big-endian
//        8      4  format version, 1, big-endian
//       12     16  uuid of the store that made it
//       28     16  token id
//       44     32  secret: random; knowing it is the right to the bytes
//       76    436  zeros
//
// Every byte counts: a token of ours has exactly one encoding. Nothing in it is trusted but as a
// name to look up; ranges and owners are in the store's own record.
#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "base/types.hpp"
#include "odx/offload.h"

namespace odx::proto {

inline constexpr std::uint32_t kTokenFormatVersion = 1;
using TokenSecret = std::array<std::uint8_t, 32>;

struct TokenFields {
  Uuid store{};
  TokenId id{};
  TokenSecret secret{};
};

[[nodiscard]] odx_token encode_token(const TokenFields& fields);

// The well-known token of endless zeros, as MS-FSCC lays it out: FF FF 00 01 00 00 01 F8 and zeros.
[[nodiscard]] odx_token zero_token();

enum class TokenKind {
  kZero,          // by its type alone; the other 508 bytes are not looked at
  kOurs,          // the one encoding of some TokenFields, of this store or another
  kReservedType,  // a well-known type yet to be defined: 0xFFFF0002 to 0xFFFFFFFF
  kMalformed,     // anything else
};
[[nodiscard]] TokenKind classify(const odx_token& token);

// The fields of a token of kind kOurs; nothing for any other.
[[nodiscard]] std::optional<TokenFields> decode(const odx_token& token);

// Whether `presented` is the token of `expected`, all 512 bytes of it. Takes the same time wherever
// they differ, so that the secret cannot be guessed a byte at a time.
[[nodiscard]] bool token_matches(const odx_token& presented, const TokenFields& expected);

}  // namespace odx::proto
