// FSCTL_OFFLOAD_WRITE on a store: table 2.2 of odx-rules.md as far as it needs one.
#include <numeric>

#include "unit/token_world.hpp"

namespace odx::test {
namespace {

// Offload writes that were refused for their token.
std::uint64_t rejected(TokenWorld& world) {
  const auto& refused = world.core().counters.refused;
  return std::accumulate(refused.begin() + ODX_REASON_TOKEN_MALFORMED,
                         refused.begin() + ODX_REASON_TOKEN_OTHER_USER + 1, std::uint64_t{0});
}

constexpr std::uint64_t kSector = 512;

// `base` with `middle` from `at` on, cut at the end of `base`.
std::string over(std::string base, std::uint64_t at, std::string_view middle) {
  const std::size_t bytes = std::min<std::size_t>(middle.size(), base.size() - at);
  return base.replace(at, bytes, middle.substr(0, bytes));
}

TEST_CASE("any range of a token goes anywhere", "[token][write][2.2#24][2.2#26]") {
  TokenWorld world;
  const std::string from = pattern(64 << 10, 1);
  const std::string old = pattern(100'000, 2);
  const InodeNo source = world.file("s", from);
  const odx_token token = world.token(source, 4096, 32 << 10);
  const std::string image = from.substr(4096, 32 << 10);
  struct Case {
    std::uint64_t at, length, token_at, expected;
  };
  for (const Case& c : {Case{0, 32 << 10, 0, 32 << 10}, Case{512, 1024, 512, 1024},
                        Case{4096, 512, (32 << 10) - 512, 512}, Case{8192, 4096, 1536, 4096},
                        // 2.2#24: the tail outside of the token
                        Case{1024, 64 << 10, 0, 32 << 10}, Case{0, 8192, 28 << 10, 4096}}) {
    CAPTURE(c.at, c.length, c.token_at);
    const InodeNo destination = world.file("d", old);
    const Reply reply = world.write(destination, c.at, c.length, token, c.token_at);
    REQUIRE(reply.error == 0);
    REQUIRE(reply.written() == c.expected);
    REQUIRE(reply.shared() == c.expected);
    REQUIRE(reply.reason() == (c.expected < c.length ? ODX_REASON_SHORT : ODX_REASON_NONE));
    REQUIRE(world.content(destination) == over(old, c.at, image.substr(c.token_at, c.expected)));
    world.remove("d");
  }
  REQUIRE(world.core().counters.tokens_redeemed.load() == 6);
  REQUIRE(rejected(world) == 0);
  world.close();
}

TEST_CASE("refused calls change nothing",
          "[token][write][2.2#0c][2.2#0d][2.2#4a][2.2#5][2.2#6][2.2#7][2.2#11][2.2#14][2.2#15]"
          "[2.2#17][2.2#19][2.2#22][2.2#23][2.2#24][2.5#10]") {
  TokenWorld world;
  const InodeNo source = world.file("s", pattern(8192, 1));
  const InodeNo ino = world.file("d", pattern(8192, 2));
  const odx_token token = world.token(source, 0, 8192);
  const std::string token_record = ok(world.core().meta->scan("T", "U", 2)).at(0).value;
  const std::string inode_record = world.inode(ino).encode();
  world.advance_ms(10'000);  // so that a refreshed timer would show

  SECTION("descriptor, policy and locks") {
    OffloadCaller caller = kRoot;
    caller.writable = false;
    require_refused(world.write(ino, 0, 4096, token, 0, caller), EBADF, ODX_STATUS_ACCESS_DENIED,
                    ODX_REASON_ACCESS_MODE);
    caller = kRoot;
    caller.disabled = true;
    require_refused(world.write(ino, 0, 4096, token, 0, caller), EPERM,
                    ODX_STATUS_OFFLOAD_WRITE_FLT_NOT_SUPPORTED, ODX_REASON_DISABLED);
    caller = kRoot;
    caller.range_locked = true;
    // 2.2#15 comes before #17 and #19.
    require_refused(world.write(ino, 1 << 20, 4096, odx_token{}, 0, caller), EAGAIN,
                    ODX_STATUS_FILE_LOCK_CONFLICT, ODX_REASON_LOCKED);
  }
  SECTION("numbers") {
    require_refused(world.write(ino, 1, 4096, token), EINVAL, ODX_STATUS_INVALID_PARAMETER,
                    ODX_REASON_FILE_OFFSET_ALIGNMENT);
    require_refused(world.write(ino, 0, 4095, token), EINVAL, ODX_STATUS_INVALID_PARAMETER,
                    ODX_REASON_COPY_LENGTH_ALIGNMENT);
    require_refused(world.write(ino, 0, 4096, token, 1), EINVAL, ODX_STATUS_INVALID_PARAMETER,
                    ODX_REASON_TRANSFER_OFFSET_ALIGNMENT);
    require_refused(world.write(ino, (1ULL << 63) - kSector, kSector, token), EFBIG,
                    ODX_STATUS_INVALID_PARAMETER, ODX_REASON_FILE_TOO_BIG);
    odx_offload call = TokenWorld::write_call(0, 4096, token);
    call.c.options = ODX_TOKEN_SYNC;
    require_refused(world.write(ino, call), EINVAL, ODX_STATUS_INVALID_PARAMETER,
                    ODX_REASON_UNKNOWN_OPTION);
  }
  SECTION("2.2#11: type") {
    require_refused(world.write(kRootInode, 0, 4096, token), EISDIR,
                    ODX_STATUS_OFFLOAD_WRITE_FILE_NOT_SUPPORTED, ODX_REASON_NOT_A_FILE);
  }
  SECTION("2.2#17: end of file") {
    for (const std::uint64_t at : {8192ULL, 8704ULL, 1ULL << 40}) {
      require_refused(world.write(ino, at, kSector, token), ENXIO, ODX_STATUS_END_OF_FILE,
                      ODX_REASON_END_OF_FILE);
    }
    require_refused(world.write(world.file("empty"), 0, kSector, token), ENXIO,
                    ODX_STATUS_END_OF_FILE, ODX_REASON_END_OF_FILE);
  }
  SECTION("2.2#19 and #23: token") {
    odx_token bad{};
    require_refused(world.write(ino, 0, 4096, bad), EKEYREJECTED, ODX_STATUS_INVALID_TOKEN,
                    ODX_REASON_TOKEN_MALFORMED);
    std::memset(&bad, 0xFF, sizeof bad);
    require_refused(world.write(ino, 0, 4096, bad), EKEYREJECTED, ODX_STATUS_INVALID_TOKEN,
                    ODX_REASON_TOKEN_RESERVED_TYPE);
    proto::TokenFields fields = proto::decode(token).value();
    fields.id[3] ^= 1;
    require_refused(world.write(ino, 0, 4096, proto::encode_token(fields)), EKEYREJECTED,
                    ODX_STATUS_INVALID_TOKEN, ODX_REASON_TOKEN_UNKNOWN);
    REQUIRE(rejected(world) == 3);
  }
  SECTION("2.2#22: another store's") {
    TokenWorld other;
    const InodeNo theirs = other.file("s", pattern(8192, 1));
    require_refused(world.write(ino, 0, 4096, other.token(theirs, 0, 8192)), EXDEV,
                    ODX_STATUS_DEVICE_UNREACHABLE, ODX_REASON_TOKEN_FOREIGN);
    require_refused(other.write(theirs, 0, 4096, token), EXDEV, ODX_STATUS_DEVICE_UNREACHABLE,
                    ODX_REASON_TOKEN_FOREIGN);
    REQUIRE(rejected(world) == 1);
    other.close();
  }
  SECTION("2.2#24: transfer offset outside of the token") {
    for (const std::uint64_t at : {8192ULL, 8704ULL, 0 - 512ULL}) {
      require_refused(world.write(ino, 0, 4096, token, at), EINVAL, ODX_STATUS_INVALID_PARAMETER,
                      ODX_REASON_TRANSFER_OFFSET_RANGE);
    }
    require_refused(world.write(ino, 0, 4096, proto::zero_token(), 0 - 512ULL), EINVAL,
                    ODX_STATUS_INVALID_PARAMETER, ODX_REASON_TRANSFER_OFFSET_RANGE);
  }
  REQUIRE(world.inode(ino).encode() == inode_record);
  REQUIRE(ok(world.core().meta->scan("T", "U", 2)).at(0).value == token_record);
  REQUIRE(world.records(keys::kToken) == 1);
  REQUIRE(world.core().counters.tokens_redeemed.load() == 0);
  world.close();
}

TEST_CASE("every flipped bit of a token is noticed", "[token][write][2.2#19][2.5#7][4.4W#14]") {
  TokenWorld world;
  const InodeNo source = world.file("s", pattern(4096, 1));
  const InodeNo ino = world.file("d", pattern(4096, 2));
  const odx_token token = world.token(source, 0, 4096);
  const std::string before = world.inode(ino).encode();
  constexpr std::size_t kUuidAt = 12;
  for (std::size_t bit = 0; bit < 8 * sizeof token; ++bit) {
    odx_token flipped = token;
    auto* bytes = reinterpret_cast<std::uint8_t*>(&flipped);
    bytes[bit / 8] ^= static_cast<std::uint8_t>(1U << bit % 8);
    const bool in_uuid = bit / 8 >= kUuidAt && bit / 8 < kUuidAt + sizeof(Uuid);
    odx_offload call = TokenWorld::write_call(0, 4096, flipped);
    const int error = world.tokens().offload_write(ino, kRoot, call);
    CAPTURE(bit);
    REQUIRE(error == (in_uuid ? EXDEV : EKEYREJECTED));
    REQUIRE(call.a.status == (in_uuid ? ODX_STATUS_DEVICE_UNREACHABLE : ODX_STATUS_INVALID_TOKEN));
  }
  REQUIRE(world.inode(ino).encode() == before);
  REQUIRE(rejected(world) == 4096);
  REQUIRE(world.write(ino, 0, 4096, token).error == 0);
  world.close();
}

TEST_CASE("2.2#10: a zero length is answered before the token is looked at",
          "[token][write][2.2#10][2.2#1]") {
  TokenWorld world;
  const InodeNo ino = world.file("empty");
  const std::string before = world.inode(ino).encode();
  world.advance_ms(1'000);
  odx_token garbage;
  std::memset(&garbage, 0xA5, sizeof garbage);
  for (const InodeNo target : {ino, kRootInode}) {
    const Reply reply = world.write(target, 1 << 20, 0, garbage);
    REQUIRE(reply.error == 0);
    REQUIRE(reply.reason() == ODX_REASON_ZERO_LENGTH);
    REQUIRE(reply.written() == 0);
  }
  REQUIRE(world.inode(ino).encode() == before);
  world.reopen(true);
  require_refused(world.write(ino, 0, 0, garbage), EROFS, ODX_STATUS_MEDIA_WRITE_PROTECTED,
                  ODX_REASON_READ_ONLY);
  world.close();
}

TEST_CASE("2.2#25: the zero token", "[token][write][2.2#25][4.4W#18]") {
  TokenWorld world;
  const std::string old = pattern(64 << 10, 2);
  const InodeNo ino = world.file("d", old);
  odx_token zero = proto::zero_token();

  SECTION("needs no READ and never expires") {
    world.advance_ms(10'000'000);
    const Reply reply = world.write(ino, 4096, 8192, zero, 1ULL << 50);
    REQUIRE(reply.error == 0);
    REQUIRE(reply.written() == 8192);
    REQUIRE(reply.shared() == 0);
    REQUIRE(world.content(ino) == over(old, 4096, std::string(8192, '\0')));
    // A hole, not zeros.
    REQUIRE(ok(world.store().files().seek_hole(ino, FileOffset(0))).value() == 4096);
  }
  SECTION("is known by its type alone") {
    std::memset(reinterpret_cast<char*>(&zero) + 4, 0xEE, sizeof zero - 4);
    REQUIRE(world.write(ino, 0, 512, zero).written() == 512);
    zero = odx_token{.type = {0xFF, 0xFF, 0x00, 0x01}};
    REQUIRE(world.write(ino, 512, 512, zero).written() == 512);
    REQUIRE(world.content(ino) == over(old, 0, std::string(1024, '\0')));
  }
  SECTION("ends at EOF and does not move it") {
    world.truncate(ino, 5000);
    const Reply reply = world.write(ino, 4096, 1 << 20, zero);
    REQUIRE(reply.written() == 1024);
    REQUIRE(reply.reason() == ODX_REASON_SHORT);
    REQUIRE(world.content(ino) == over(old.substr(0, 5000), 4096, std::string(904, '\0')));
  }
  world.close();
}

TEST_CASE("the end of the destination does not move",
          "[token][write][2.2#27][2.3#A][2.3#D][4.4W#13]") {
  TokenWorld world;
  const std::string from = pattern(8192, 1);
  const odx_token token = world.token(world.file("s", from), 0, 8192);
  SECTION("aligned EOF") {
    const InodeNo ino = world.file("d", pattern(4096, 2));
    const Reply reply = world.write(ino, 0, 8192, token);
    REQUIRE(reply.written() == 4096);
    REQUIRE(reply.shared() == 4096);
    REQUIRE(world.content(ino) == from.substr(0, 4096));
  }
  SECTION("unaligned EOF: the report is rounded, the bytes are not") {
    const InodeNo ino = world.file("d", pattern(4196, 2));
    const Reply reply = world.write(ino, 0, 8192, token);
    REQUIRE(reply.written() == 4608);
    REQUIRE(reply.shared() == 4196);
    REQUIRE(world.content(ino) == from.substr(0, 4196));
  }
  SECTION("2.3-A: an unaligned length that ends at EOF is reported as it is") {
    const InodeNo ino = world.file("d", pattern(4196, 2));
    const Reply reply = world.write(ino, 0, 4196, token);
    REQUIRE(reply.written() == 4196);
    REQUIRE(reply.reason() == ODX_REASON_NONE);
    REQUIRE(world.content(ino) == from.substr(0, 4196));
  }
  world.close();
}

TEST_CASE("2.3-E: a token over an unaligned tail", "[token][write][2.3#E]") {
  TokenWorld world;
  const std::string from = pattern(1000, 1);
  const std::string old = pattern(4096, 2);
  const InodeNo source = world.file("s", from);
  const odx_token token = world.token(source, 0, 1024);

  SECTION("zeroes the rest of the sector") {
    const InodeNo ino = world.file("d", old);
    const Reply reply = world.write(ino, 512, 4096 - 512, token);
    REQUIRE(reply.written() == 1024);
    REQUIRE(reply.shared() == 1000);
    REQUIRE(world.content(ino) == over(old, 512, from + std::string(24, '\0')));
  }
  SECTION("but not beyond EOF") {
    const InodeNo ino = world.file("d", old.substr(0, 1010));
    const Reply reply = world.write(ino, 0, 1024, token);
    REQUIRE(reply.written() == 1024);
    REQUIRE(world.content(ino) == from + std::string(10, '\0'));
  }
  SECTION("its span is the rounded length") {
    const InodeNo ino = world.file("d", old);
    REQUIRE(world.write(ino, 0, 512, token, 512).written() == 512);
    REQUIRE(world.content(ino) == over(old, 0, from.substr(512) + std::string(24, '\0')));
    require_refused(world.write(ino, 0, 512, token, 1024), EINVAL, ODX_STATUS_INVALID_PARAMETER,
                    ODX_REASON_TRANSFER_OFFSET_RANGE);
  }
  SECTION("also if it was asked for unaligned") {
    const odx_token exact = world.token(source, 512, 488);
    const InodeNo ino = world.file("d", old);
    REQUIRE(world.write(ino, 0, 1024, exact).written() == 512);
    REQUIRE(world.content(ino) == over(old, 0, from.substr(512) + std::string(24, '\0')));
  }
  world.close();
}

TEST_CASE("odx_extend lets the end move", "[token][write][2.3#D]") {
  TokenWorld world({.tokens = {.extend = true}});
  const std::string from = pattern(5000, 1);
  const odx_token token = world.token(world.file("s", from), 0, 5120);
  SECTION("from an empty file") {
    const InodeNo ino = world.file("d");
    REQUIRE(world.write(ino, 0, 5120, token).written() == 5120);
    REQUIRE(world.content(ino) == from);  // not the zeros behind the source's EOF
  }
  SECTION("over EOF, and at it") {
    const InodeNo ino = world.file("d", pattern(512, 2));
    REQUIRE(world.write(ino, 0, 4096, token).written() == 4096);
    REQUIRE(world.content(ino) == from.substr(0, 4096));
    REQUIRE(world.write(ino, 4096, 1024, token, 4096).written() == 1024);
    REQUIRE(world.content(ino) == from);
  }
  SECTION("with zeros") {
    const InodeNo ino = world.file("d", pattern(512, 2));
    REQUIRE(world.write(ino, 512, 4096, proto::zero_token()).written() == 4096);
    REQUIRE(world.content(ino) == pattern(512, 2) + std::string(4096, '\0'));
  }
  SECTION("but leaves no gap") {
    const InodeNo ino = world.file("d", pattern(512, 2));
    require_refused(world.write(ino, 1024, 512, token), ENXIO, ODX_STATUS_END_OF_FILE,
                    ODX_REASON_END_OF_FILE);
  }
  world.close();
}

TEST_CASE("a WRITE counts as a write", "[token][write][2.2#16][2.3#I][4.4W#40][4.4W#41]") {
  TokenWorld world;
  const odx_token token = world.token(world.file("s", pattern(4096, 1)), 0, 4096);
  const InodeNo ino = world.file("d", pattern(4096, 2));
  ok(world.store().names().set_xattr(ino, "security.capability", "\1\2\3", Names::XattrMode::kAny));
  ok(world.store().names().set_xattr(ino, "user.kept", "yes", Names::XattrMode::kAny));
  ok(world.store().names().change(ino, {.mode = 06755}));
  const Inode before = world.inode(ino);
  world.advance_ms(3'000);

  SECTION("of a user") {
    REQUIRE(world.write(ino, 0, 512, token, 0, user(1000)).error == 0);
    REQUIRE(world.inode(ino).mode == (S_IFREG | 0755));
  }
  SECTION("of root") {
    REQUIRE(world.write(ino, 0, 512, token).error == 0);
    REQUIRE(world.inode(ino).mode == before.mode);
  }
  SECTION("set-group-id without group execution is something else") {
    ok(world.store().names().change(ino, {.mode = 06745}));
    REQUIRE(world.write(ino, 0, 512, token, 0, user(1000)).error == 0);
    REQUIRE(world.inode(ino).mode == (S_IFREG | 02745));
  }
  const Inode after = world.inode(ino);
  REQUIRE(after.mtime_ns == world.clock().now_ns());
  REQUIRE(after.ctime_ns == world.clock().now_ns());
  REQUIRE(after.atime_ns == before.atime_ns);
  REQUIRE(after.data_version > before.data_version);
  REQUIRE(ok(world.store().names().list_xattrs(ino)) == std::vector<std::string>{"user.kept"});
  REQUIRE(after.xattr_count == 1);
  world.close();
}

TEST_CASE("2.3-J: source and destination may overlap", "[token][write][2.3#J][4.4W#37]") {
  TokenWorld world;
  const std::string bytes = pattern(64 << 10, 1);
  const InodeNo ino = world.file("a", bytes);
  const std::uint64_t length = 32 << 10;
  for (const auto& [from, to] :
       {std::pair{0ULL, 8704ULL}, {8704ULL, 0ULL}, {4096ULL, 4096ULL}, {0ULL, 32768ULL}}) {
    CAPTURE(from, to);
    const std::string before = world.content(ino);
    const odx_token token = world.token(ino, from, length);
    REQUIRE(world.write(ino, to, length, token).written() == length);
    REQUIRE(world.content(ino) == over(before, to, before.substr(from, length)));
  }
  world.close();
}

TEST_CASE("holes in a token stay holes", "[token][write][2.2#11b][2.3#G]") {
  TokenWorld world;
  const InodeNo source = world.file("s");
  world.truncate(source, 64 << 10);
  world.write_bytes(source, 16 << 10, pattern(8192, 1));
  world.write_bytes(source, 40 << 10, pattern(4096, 2));
  const odx_token token = world.token(source, 0, 64 << 10);
  const InodeNo ino = world.file("d", pattern(64 << 10, 3));
  const Reply reply = world.write(ino, 0, 64 << 10, token);
  REQUIRE(reply.written() == 64 << 10);
  REQUIRE(reply.shared() == 12 << 10);
  REQUIRE(world.core().counters.offload_bytes_shared.load() == 12 << 10);
  REQUIRE(world.content(ino) == world.content(source));
  REQUIRE(world.inode(ino).tree.data_bytes() == 12 << 10);
  REQUIRE(ok(world.store().files().seek_data(ino, FileOffset(0))).value() == 16 << 10);
  world.close();
}

TEST_CASE("2.2#12: an open but removed destination works", "[token][write][2.2#12]") {
  TokenWorld world;
  const std::string from = pattern(4096, 1);
  const odx_token token = world.token(world.file("s", from), 0, 4096);
  const InodeNo ino = world.file("d", pattern(4096, 2));
  ok(world.store().names().unlink(kRootInode, "d"));
  REQUIRE(world.write(ino, 0, 4096, token).error == 0);
  REQUIRE(world.content(ino) == from);
  ok(world.store().names().reap(ino));
  REQUIRE(world.write(ino, 0, 4096, token).error == ENOENT);
  world.close();
}

TEST_CASE("sharing takes no space", "[token][write][2.2#28]") {
  TokenWorld world;
  const odx_token token = world.token(world.file("s", pattern(1 << 20, 1)), 0, 1 << 20);
  const InodeNo ino = world.file("d");
  world.truncate(ino, 16 << 20);
  world.settle();
  const std::uint64_t free_before = world.free_blocks();
  for (std::uint64_t at = 0; at < 16 << 20; at += 1 << 20) {
    REQUIRE(world.write(ino, at, 1 << 20, token).shared() == 1 << 20);
  }
  world.settle();
  REQUIRE(world.free_blocks() == free_before);
  world.close();
}

}  // namespace
}  // namespace odx::test
