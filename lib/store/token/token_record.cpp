// The value of a `T` record, little-endian:
//
//   offset  bytes
//        0      1  version, 1
//        1      1  state: 0 live, 1 expired
//        2      4  uid
//        6     32  secret
//       38      8  created, ns since 1970
//       46      8  last used
//       54      8  due
//       62      8  TTL, ms
//       70      8  span, bytes
//       78      8  data length, bytes
//       86         live: the tree, as Tree::encode() writes it; expired: nothing
#include "store/token/token_record.hpp"

#include <algorithm>
#include <cstring>

#include "base/codec.hpp"
#include "store/meta/keys.hpp"

namespace odx {

namespace {

constexpr std::uint8_t kVersion = 1;
constexpr std::size_t kTokenKeyBytes = 1 + sizeof(TokenId);
constexpr std::size_t kExpiryKeyBytes = 1 + 8 + sizeof(TokenId);

TokenId id_from(std::string_view bytes) {
  TokenId id;
  std::memcpy(id.data(), bytes.data(), id.size());
  return id;
}

void put_time(std::string& out, std::int64_t ns) { put_le(out, static_cast<std::uint64_t>(ns)); }

std::int64_t take_time(Decoder& in) { return static_cast<std::int64_t>(in.le<std::uint64_t>()); }

// What every record satisfies, whatever made it.
bool consistent(const TokenRecord& record) {
  if (record.created_ns < 0 || record.last_used_ns < record.created_ns || record.due_ns < 0 ||
      record.ttl_ms == 0 || record.ttl_ms > kLongestTtlMs || record.span == 0 ||
      record.span > kMaxFileBytes + 1 || record.data_length == 0 ||
      record.data_length > record.span) {
    return false;
  }
  if (!record.live()) {
    return true;
  }
  return record.tree.bytes() == record.data_length &&
         record.tree.data_bytes() <= record.data_length;
}

}  // namespace

std::string TokenRecord::key() const { return keys::token(id); }

std::string TokenRecord::expiry_key() const {
  return keys::token_expiry(static_cast<std::uint64_t>(due_ns), id);
}

std::string TokenRecord::encode() const {
  std::string out;
  put_le(out, kVersion);
  put_le(out, static_cast<std::uint8_t>(state));
  put_le(out, uid);
  out.append(reinterpret_cast<const char*>(secret.data()), secret.size());
  put_time(out, created_ns);
  put_time(out, last_used_ns);
  put_time(out, due_ns);
  put_le(out, ttl_ms);
  put_le(out, span);
  put_le(out, data_length);
  if (live()) {
    tree.encode(out);
  }
  return out;
}

Result<TokenRecord> TokenRecord::decode(const TokenId& id, std::string_view bytes) {
  Decoder in(bytes);
  if (in.le<std::uint8_t>() != kVersion) {
    return corrupt("token record of an unknown version");
  }
  TokenRecord record;
  record.id = id;
  const auto state = in.le<std::uint8_t>();
  if (state > static_cast<std::uint8_t>(State::kExpired)) {
    return corrupt("token record in an unknown state");
  }
  record.state = static_cast<State>(state);
  record.uid = in.le<std::uint32_t>();
  const std::string_view secret = in.bytes(record.secret.size());
  std::copy(secret.begin(), secret.end(), record.secret.begin());
  record.created_ns = take_time(in);
  record.last_used_ns = take_time(in);
  record.due_ns = take_time(in);
  record.ttl_ms = in.le<std::uint64_t>();
  record.span = in.le<std::uint64_t>();
  record.data_length = in.le<std::uint64_t>();
  if (record.live()) {
    record.tree = ODX_TRY(Tree::decode(in));
  }
  ODX_TRY(in.finish("token record"));
  if (!consistent(record)) {
    return corrupt("token record contradicts itself");
  }
  return record;
}

Result<TokenId> token_id_of_key(std::string_view key) {
  if (key.size() != kTokenKeyBytes || key[0] != keys::kToken) {
    return corrupt("malformed token key");
  }
  return id_from(key.substr(1));
}

Result<TokenDue> token_due_of_key(std::string_view key) {
  if (key.size() != kExpiryKeyBytes || key[0] != keys::kTokenExpiry ||
      keys::number_of(key) > INT64_MAX) {
    return corrupt("malformed token expiry key");
  }
  return TokenDue{static_cast<std::int64_t>(keys::number_of(key)), id_from(key.substr(9))};
}

}  // namespace odx
