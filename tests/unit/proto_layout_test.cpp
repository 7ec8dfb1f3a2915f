// The bytes of the ABI: offsets, ioctl numbers, golden vectors of structures, tokens and replies.
#include <rapidcheck.h>
#include <sys/ioctl.h>

#include <array>
#include <catch2/catch.hpp>
#include <cstddef>
#include <cstring>
#include <map>
#include <string>

#include "odx/offload.h"
#include "proto/rules.hpp"
#include "proto/token_codec.hpp"

using namespace odx::proto;

// MS-FSCC 2.1.11 and 2.3.41 to 2.3.44.
static_assert(sizeof(odx_token) == 512);
static_assert(offsetof(odx_token, reserved) == 4);
static_assert(offsetof(odx_token, id_length) == 6);
static_assert(offsetof(odx_token, id) == 8);
static_assert(sizeof(odx_read_input) == 32);
static_assert(offsetof(odx_read_input, token_time_to_live) == 8);
static_assert(offsetof(odx_read_input, file_offset) == 16);
static_assert(offsetof(odx_read_input, copy_length) == 24);
static_assert(sizeof(odx_read_output) == 528);
static_assert(offsetof(odx_read_output, flags) == 4);
static_assert(offsetof(odx_read_output, transfer_length) == 8);
static_assert(offsetof(odx_read_output, token) == 16);
static_assert(sizeof(odx_write_input) == 544);
static_assert(offsetof(odx_write_input, file_offset) == 8);
static_assert(offsetof(odx_write_input, copy_length) == 16);
static_assert(offsetof(odx_write_input, transfer_offset) == 24);
static_assert(offsetof(odx_write_input, token) == 32);
static_assert(sizeof(odx_write_output) == 16);
static_assert(offsetof(odx_write_output, length_written) == 8);
static_assert(sizeof(odx_offload) == 560);
static_assert(offsetof(odx_offload, a) == 544);
static_assert(offsetof(odx_offload, b) == 548);
static_assert(offsetof(odx_offload, c) == 552);
// _IOWR('O', 0x99, 560 bytes) and so on: programs have these numbers compiled in.
static_assert(ODX_IOC_OFFLOAD_READ == 0xC2304F99);
static_assert(ODX_IOC_OFFLOAD_WRITE == 0xC2304F9A);
static_assert(sizeof(odx_token_info) == 56);
static_assert(sizeof(odx_token_list) == 24 + 16 * 56);
static_assert(sizeof(odx_token_drop) == 16);
static_assert(sizeof(odx_stat) == 1240);
static_assert(_IOC_SIZE(ODX_IOC_STAT) == sizeof(odx_stat));

namespace {

template <class T>
std::string bytes_of(const T& object) {
  return {reinterpret_cast<const char*>(&object), sizeof object};
}

// `size` zero bytes, overwritten at the given offsets.
std::string golden(std::size_t size, const std::map<std::size_t, std::string>& parts) {
  std::string bytes(size, '\0');
  for (const auto& [at, part] : parts) {
    bytes.replace(at, part.size(), part);
  }
  return bytes;
}

using namespace std::string_literals;

TokenFields sample_fields() {
  TokenFields fields;
  for (std::size_t i = 0; i < 16; ++i) {
    fields.store[i] = static_cast<std::uint8_t>(0x10 + i);
    fields.id[i] = static_cast<std::uint8_t>(0x20 + i);
  }
  for (std::size_t i = 0; i < 32; ++i) {
    fields.secret[i] = static_cast<std::uint8_t>(0x80 + i);
  }
  return fields;
}

std::string run(std::uint8_t first, std::size_t count) {
  std::string bytes;
  for (std::size_t i = 0; i < count; ++i) {
    bytes.push_back(static_cast<char>(first + i));
  }
  return bytes;
}

std::string sample_token_bytes() {
  return golden(512, {{0, "\x4F\x44\x58\x46\x00\x00\x01\xF8"s},
                      {8, "\x00\x00\x00\x01"s},
                      {12, run(0x10, 16)},
                      {28, run(0x20, 16)},
                      {44, run(0x80, 32)}});
}

const std::string kZeroToken = golden(512, {{0, "\xFF\xFF\x00\x01\x00\x00\x01\xF8"s}});

odx_offload dirty() {
  odx_offload call;
  std::memset(&call, 0xA5, sizeof call);
  return call;
}

}  // namespace

TEST_CASE("layout: input structures", "[1#2][1#4][1#7]") {
  odx_offload call{};
  call.body.read_in = {32, 0x01020304, 60000, 0x05060708, 0x1122334455667700, 0x0000000100000200};
  CHECK(bytes_of(call) == golden(560, {{0, "\x20\x00\x00\x00\x04\x03\x02\x01"s},
                                       {8, "\x60\xEA\x00\x00\x08\x07\x06\x05"s},
                                       {16, "\x00\x77\x66\x55\x44\x33\x22\x11"s},
                                       {24, "\x00\x02\x00\x00\x01\x00\x00\x00"s}}));
  call = {};
  call.body.write_in.size = 544;
  call.body.write_in.file_offset = 0x1000;
  call.body.write_in.copy_length = 0x2000;
  call.body.write_in.transfer_offset = 0x200;
  call.body.write_in.token = encode_token(sample_fields());
  call.a.input_length = 544;
  call.b.output_room = 16;
  call.c.options = ODX_TOKEN_SYNC;
  CHECK(bytes_of(call) == golden(560, {{0, "\x20\x02\x00\x00"s},
                                       {9, "\x10"s},
                                       {17, "\x20"s},
                                       {25, "\x02"s},
                                       {32, sample_token_bytes()},
                                       {544, "\x20\x02\x00\x00\x10\x00\x00\x00\x01"s}}));
}

TEST_CASE("layout: a token of ours", "[1#6]") {
  CHECK(bytes_of(encode_token(sample_fields())) == sample_token_bytes());
}

TEST_CASE("layout: the zero token", "[1#6][2.2#25]") {
  CHECK(bytes_of(zero_token()) == kZeroToken);
}

TEST_CASE("layout: a successful READ's reply", "[1#3][1#7][2.3#F]") {
  odx_offload call = dirty();
  ReadPlan plan;
  plan.copy_length = 0x20000;
  plan.transfer_length = 0x10200;
  fill_read_success(call, plan, encode_token(sample_fields()), true);
  CHECK(bytes_of(call) == golden(560, {{0, "\x10\x02\x00\x00\x01\x00\x00\x00"s},
                                       {8, "\x00\x02\x01\x00\x00\x00\x00\x00"s},
                                       {16, sample_token_bytes()},
                                       {548, "\x1C"s}}));
  plan.copy_length = plan.transfer_length;
  fill_read_success(call, plan, call.body.read_out.token, false);
  CHECK(bytes_of(call) == golden(560, {{0, "\x10\x02\x00\x00\x00\x00\x00\x00"s},
                                       {8, "\x00\x02\x01\x00\x00\x00\x00\x00"s},
                                       {16, sample_token_bytes()}}));
}

TEST_CASE("layout: a zero-length READ's reply", "[1#3][2.1#8]") {
  odx_offload call = dirty();
  fill_read_zero_length(call);
  CHECK(bytes_of(call) ==
        golden(560, {{0, "\x10\x02\x00\x00"s}, {16, kZeroToken}, {548, "\x09"s}}));
}

TEST_CASE("layout: a successful WRITE's reply", "[1#5][1#7][2.3#F]") {
  odx_offload call = dirty();
  WritePlan plan;
  plan.copy_length = 0x4000;
  fill_write_success(call, plan, 0x3000, 0x2FFF);
  CHECK(bytes_of(call) ==
        golden(560, {{0, "\x10\x00\x00\x00"s}, {9, "\x30"s}, {548, "\x1C"s}, {552, "\xFF\x2F"s}}));
  fill_write_success(call, plan, 0x4000, 0);
  CHECK(bytes_of(call) == golden(560, {{0, "\x10\x00\x00\x00"s}, {9, "\x40"s}}));
}

TEST_CASE("layout: a zero-length WRITE's reply", "[1#5][2.2#10]") {
  odx_offload call = dirty();
  fill_write_zero_length(call);
  CHECK(bytes_of(call) == golden(560, {{0, "\x10"s}, {548, "\x09"s}}));
}

TEST_CASE("layout: a failure's reply has an empty body, a status and a reason", "[1#7][2.5#10]") {
  odx_offload call = dirty();
  fill_failure(call, verdict_for(ODX_REASON_TOKEN_EXPIRED, Control::kWrite));
  CHECK(bytes_of(call) == golden(560, {{544, "\x65\x04\x00\xC0\x13"s}}));
}

TEST_CASE("token: encode and decode are inverse", "[1#6]") {
  CHECK(rc::check([] {
    TokenFields fields;
    for (auto& byte : fields.store) byte = *rc::gen::arbitrary<std::uint8_t>();
    for (auto& byte : fields.id) byte = *rc::gen::arbitrary<std::uint8_t>();
    for (auto& byte : fields.secret) byte = *rc::gen::arbitrary<std::uint8_t>();
    const odx_token token = encode_token(fields);
    RC_ASSERT(classify(token) == TokenKind::kOurs);
    const auto back = decode(token);
    RC_ASSERT(back.has_value());
    RC_ASSERT(back->store == fields.store);
    RC_ASSERT(back->id == fields.id);
    RC_ASSERT(back->secret == fields.secret);
    RC_ASSERT(token_matches(token, fields));
  }));
}

TEST_CASE("token: every flipped bit is noticed", "[1#6][2.2#19][2.5#7][4.4W#14]") {
  const odx_token good = encode_token(sample_fields());
  for (std::size_t byte = 0; byte < sizeof good; ++byte) {
    for (int bit = 0; bit < 8; ++bit) {
      odx_token bad = good;
      reinterpret_cast<std::uint8_t*>(&bad)[byte] ^= static_cast<std::uint8_t>(1 << bit);
      CAPTURE(byte, bit);
      REQUIRE_FALSE(token_matches(bad, sample_fields()));
      // In the fields it is another token; anywhere else it is none.
      const bool in_fields = byte >= 12 && byte < 76;
      REQUIRE(classify(bad) == (in_fields ? TokenKind::kOurs : TokenKind::kMalformed));
      REQUIRE(decode(bad).has_value() == in_fields);
    }
  }
}

TEST_CASE("token: zero by its type alone", "[2.2#25][4.4W#18]") {
  odx_token token = zero_token();
  CHECK(classify(token) == TokenKind::kZero);
  token.id_length[0] = token.id_length[1] = 0;
  CHECK(classify(token) == TokenKind::kZero);
  std::memset(token.id, 0xEE, sizeof token.id);
  token.reserved[0] = 1;
  CHECK(classify(token) == TokenKind::kZero);
  CHECK_FALSE(decode(token).has_value());
}

TEST_CASE("token: reserved well-known types and strangers",
          "[2.2#19][2.2#23][4.4W#15][4.4W#16][4.4W#17]") {
  odx_token token{};
  CHECK(classify(token) == TokenKind::kMalformed);  // all zero
  std::memset(&token, 0xFF, sizeof token);
  CHECK(classify(token) == TokenKind::kReservedType);
  token = zero_token();
  token.type[3] = 2;  // 0xFFFF0002
  CHECK(classify(token) == TokenKind::kReservedType);
  token.type[3] = 0;  // 0xFFFF0000, the last of the vendors'
  CHECK(classify(token) == TokenKind::kMalformed);
  token = encode_token(sample_fields());
  token.type[0] = 0x00;
  token.type[1] = 0x01;
  token.type[2] = 0x00;
  token.type[3] = 0x01;  // another filesystem's
  CHECK(classify(token) == TokenKind::kMalformed);
}
