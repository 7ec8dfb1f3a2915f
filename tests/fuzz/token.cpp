// The token parser: any 512 bytes, and those of a real token with changes.
#include <cstring>

#include "input.hpp"
#include "proto/token_codec.hpp"

namespace odx::fuzz {

namespace {

bool same(const odx_token& a, const odx_token& b) { return std::memcmp(&a, &b, sizeof a) == 0; }

void run(Input in) {
  proto::TokenFields fields;
  std::string bytes;
  switch (in.below(3)) {
    case 0: {
      fields = {in.raw<Uuid>(), in.raw<TokenId>(), in.raw<proto::TokenSecret>()};
      const odx_token token = proto::encode_token(fields);
      bytes.assign(reinterpret_cast<const char*>(&token), sizeof token);
      break;
    }
    case 1: {
      const odx_token token = proto::zero_token();
      bytes.assign(reinterpret_cast<const char*>(&token), sizeof token);
      break;
    }
    default:
      break;
  }
  const odx_token whole = proto::encode_token(fields);
  for (std::size_t left = in.below(4); left > 0; --left) {
    in.damage(bytes);
  }
  bytes.append(in.take_rest());
  bytes.resize(sizeof(odx_token));
  odx_token token;
  std::memcpy(&token, bytes.data(), sizeof token);

  const proto::TokenKind kind = proto::classify(token);
  const auto decoded = proto::decode(token);
  FUZZ_EXPECT(decoded.has_value() == (kind == proto::TokenKind::kOurs));
  if (decoded) {
    FUZZ_EXPECT(same(proto::encode_token(*decoded), token));
    FUZZ_EXPECT(proto::token_matches(token, *decoded));
  }
  FUZZ_EXPECT(proto::token_matches(token, fields) == same(token, whole));
  const std::uint32_t type = static_cast<std::uint32_t>(token.type[0]) << 24U |
                             static_cast<std::uint32_t>(token.type[1]) << 16U |
                             static_cast<std::uint32_t>(token.type[2]) << 8U | token.type[3];
  FUZZ_EXPECT((kind == proto::TokenKind::kZero) == (type == ODX_TOKEN_TYPE_ZERO_DATA));
  FUZZ_EXPECT((kind == proto::TokenKind::kReservedType) == (type >= ODX_TOKEN_TYPE_RESERVED_FIRST));
}

}  // namespace

}  // namespace odx::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  odx::fuzz::run({data, size});
  return 0;
}
