#include "proto/token_codec.hpp"

#include <sodium/utils.h>

#include <bit>
#include <cstring>

#include "base/codec.hpp"

namespace odx::proto {

namespace {

using TokenBytes = std::array<std::uint8_t, ODX_TOKEN_BYTES>;
static_assert(sizeof(odx_token) == sizeof(TokenBytes));

constexpr std::size_t kTypeAt = 0;
constexpr std::size_t kIdLengthAt = 6;
constexpr std::size_t kVersionAt = 8;
constexpr std::size_t kStoreAt = 12;
constexpr std::size_t kIdAt = 28;
constexpr std::size_t kSecretAt = 44;

void store_be(TokenBytes& bytes, std::size_t at, std::uint32_t value, std::size_t width) {
  for (std::size_t i = 0; i < width; ++i) {
    bytes[at + i] = static_cast<std::uint8_t>(value >> (8 * (width - 1 - i)));
  }
}

TokenBytes header(std::uint32_t type) {
  TokenBytes bytes{};
  store_be(bytes, kTypeAt, type, 4);
  store_be(bytes, kIdLengthAt, ODX_TOKEN_ID_LENGTH, 2);
  return bytes;
}

}  // namespace

odx_token encode_token(const TokenFields& fields) {
  TokenBytes bytes = header(ODX_TOKEN_TYPE_ODXFS);
  store_be(bytes, kVersionAt, kTokenFormatVersion, 4);
  std::memcpy(&bytes[kStoreAt], fields.store.data(), fields.store.size());
  std::memcpy(&bytes[kIdAt], fields.id.data(), fields.id.size());
  std::memcpy(&bytes[kSecretAt], fields.secret.data(), fields.secret.size());
  return std::bit_cast<odx_token>(bytes);
}

odx_token zero_token() { return std::bit_cast<odx_token>(header(ODX_TOKEN_TYPE_ZERO_DATA)); }

TokenKind classify(const odx_token& token) {
  const auto type = load_be<std::uint32_t>(token.type);
  if (type == ODX_TOKEN_TYPE_ZERO_DATA) {
    return TokenKind::kZero;
  }
  if (type >= ODX_TOKEN_TYPE_RESERVED_FIRST) {
    return TokenKind::kReservedType;
  }
  return decode(token) ? TokenKind::kOurs : TokenKind::kMalformed;
}

std::optional<TokenFields> decode(const odx_token& token) {
  const auto bytes = std::bit_cast<TokenBytes>(token);
  TokenFields fields;
  std::memcpy(fields.store.data(), &bytes[kStoreAt], fields.store.size());
  std::memcpy(fields.id.data(), &bytes[kIdAt], fields.id.size());
  std::memcpy(fields.secret.data(), &bytes[kSecretAt], fields.secret.size());
  // Header, version and padding are right exactly if encoding the fields gives the bytes back.
  if (!token_matches(token, fields)) {
    return std::nullopt;
  }
  return fields;
}

bool token_matches(const odx_token& presented, const TokenFields& expected) {
  const odx_token encoded = encode_token(expected);
  return ::sodium_memcmp(&presented, &encoded, sizeof encoded) == 0;
}

}  // namespace odx::proto
