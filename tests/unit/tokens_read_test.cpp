// FSCTL_OFFLOAD_READ on a store: table 2.1 of odx-rules.md as far as it needs one.
#include "unit/token_world.hpp"

namespace odx::test {
namespace {

constexpr std::uint64_t kSector = 512;

TEST_CASE("a whole file becomes a token", "[token][read][2.1#21]") {
  TokenWorld world;
  const std::string bytes = pattern(10 * 4096, 1);
  const InodeNo ino = world.file("a", bytes);
  const Reply reply = world.read(ino, 0, bytes.size());
  REQUIRE(reply.error == 0);
  REQUIRE(reply.reason() == ODX_REASON_NONE);
  REQUIRE(reply.transfer_length() == bytes.size());
  REQUIRE(reply.zeros_beyond());
  REQUIRE(proto::classify(reply.token()) == proto::TokenKind::kOurs);
  REQUIRE(world.shown(reply.token(), bytes.size()) == bytes);
  REQUIRE(world.tokens().live() == 1);
  REQUIRE(world.core().counters.tokens_created.load() == 1);
  world.close();
}

TEST_CASE("every READ makes a token of its own", "[token][read][2.5#2][4.4R#25]") {
  TokenWorld world;
  const InodeNo ino = world.file("a", pattern(4096, 1));
  const odx_token first = world.token(ino, 0, 4096);
  const odx_token second = world.token(ino, 0, 4096);
  REQUIRE_FALSE(same(first, second));
  REQUIRE(world.tokens().live() == 2);
  world.close();
}

TEST_CASE("a READ changes nothing of its file", "[token][read][2.3#I]") {
  TokenWorld world;
  const InodeNo ino = world.file("a", pattern(8192, 1));
  const std::string before = world.inode(ino).encode();
  world.advance_ms(5'000);
  world.token(ino, 0, 4096);
  REQUIRE(world.inode(ino).encode() == before);
  world.close();
}

TEST_CASE("ignored fields are ignored", "[token][read][4.4R#26]") {
  TokenWorld world;
  const InodeNo ino = world.file("a", pattern(4096, 1));
  odx_offload call = TokenWorld::read_call(0, 4096);
  call.body.read_in.flags = 0xFFFFFFFF;
  call.body.read_in.reserved = 0xFFFFFFFF;
  call.a.input_length = 4096;
  call.b.output_room = 4096;
  REQUIRE(world.read(ino, call).error == 0);
  world.close();
}

TEST_CASE("facts of the file refuse a READ",
          "[token][read][2.1#0c][2.1#0d][2.1#4][2.1#5][2.1#7][2.1#9][2.1#14][2.1#15][2.1#16]") {
  TokenWorld world;
  const InodeNo ino = world.file("a", pattern(8192, 1));

  SECTION("descriptor, policy and locks") {
    OffloadCaller caller = kRoot;
    caller.readable = false;
    require_refused(world.read(ino, 0, 4096, caller), EBADF, ODX_STATUS_ACCESS_DENIED,
                    ODX_REASON_ACCESS_MODE);
    caller = kRoot;
    caller.disabled = true;
    require_refused(world.read(ino, 0, 4096, caller), EPERM,
                    ODX_STATUS_OFFLOAD_READ_FLT_NOT_SUPPORTED, ODX_REASON_DISABLED);
    caller = kRoot;
    caller.range_locked = true;
    require_refused(world.read(ino, 0, 4096, caller), EAGAIN, ODX_STATUS_FILE_LOCK_CONFLICT,
                    ODX_REASON_LOCKED);
    // 2.1#15 comes before #16.
    require_refused(world.read(ino, 1 << 20, 4096, caller), EAGAIN, ODX_STATUS_FILE_LOCK_CONFLICT,
                    ODX_REASON_LOCKED);
  }
  SECTION("2.1#9: type") {
    require_refused(world.read(kRootInode, 0, 4096), EISDIR,
                    ODX_STATUS_OFFLOAD_READ_FILE_NOT_SUPPORTED, ODX_REASON_NOT_A_FILE);
    const InodeNo fifo =
        ok(world.store().names().create(kRootInode, "p", {.mode = S_IFIFO | 0644}))->ino;
    require_refused(world.read(fifo, 0, 4096), EOPNOTSUPP,
                    ODX_STATUS_OFFLOAD_READ_FILE_NOT_SUPPORTED, ODX_REASON_NOT_A_FILE);
  }
  SECTION("2.1#16: end of file") {
    for (const std::uint64_t at : {8192ULL, 8192ULL + kSector, 1ULL << 40}) {
      require_refused(world.read(ino, at, kSector), ENXIO, ODX_STATUS_END_OF_FILE,
                      ODX_REASON_END_OF_FILE);
    }
    const InodeNo empty = world.file("empty");
    require_refused(world.read(empty, 0, kSector), ENXIO, ODX_STATUS_END_OF_FILE,
                    ODX_REASON_END_OF_FILE);
  }
  SECTION("numbers") {
    require_refused(world.read(ino, 511, 4096), EINVAL, ODX_STATUS_INVALID_PARAMETER,
                    ODX_REASON_FILE_OFFSET_ALIGNMENT);
    require_refused(world.read(ino, 0, 4095), EINVAL, ODX_STATUS_INVALID_PARAMETER,
                    ODX_REASON_COPY_LENGTH_ALIGNMENT);
    require_refused(world.read(ino, 0 - kSector, 2 * kSector), EINVAL, ODX_STATUS_INVALID_PARAMETER,
                    ODX_REASON_RANGE_WRAPS);
    require_refused(world.read(ino, 1ULL << 63, kSector), EINVAL, ODX_STATUS_INVALID_PARAMETER,
                    ODX_REASON_OFFSET_NEGATIVE);
  }
  SECTION("a file that is not there") {
    const Reply reply = world.read(InodeNo(99'999), 0, 4096);
    REQUIRE(reply.error == ENOENT);
  }
  REQUIRE(world.tokens().live() == 0);
  REQUIRE(world.records(keys::kToken) == 0);
  REQUIRE(world.records(keys::kTokenExpiry) == 0);
  world.close();
}

TEST_CASE("2.1#8: a zero length is answered at once", "[token][read][2.1#8]") {
  TokenWorld world;
  const InodeNo ino = world.file("a", pattern(4096, 1));
  OffloadCaller locked = kRoot;
  locked.range_locked = true;
  for (const auto& [target, offset] :
       {std::pair{ino, 0ULL}, {ino, 1ULL << 40}, {kRootInode, 0ULL}}) {
    const Reply reply = world.read(target, offset, 0, locked);
    REQUIRE(reply.error == 0);
    REQUIRE(reply.reason() == ODX_REASON_ZERO_LENGTH);
    REQUIRE(reply.transfer_length() == 0);
    REQUIRE(is_zero_token(reply.token()));
  }
  REQUIRE(world.records(keys::kToken) == 0);
  world.close();
}

TEST_CASE("2.1#18: the range is cut at the end of the file",
          "[token][read][2.1#18][2.3#A][2.1#4]") {
  TokenWorld world;
  SECTION("aligned") {
    const InodeNo ino = world.file("a", pattern(8192, 1));
    const Reply reply = world.read(ino, 4096, 1 << 20);
    REQUIRE(reply.error == 0);
    REQUIRE(reply.transfer_length() == 4096);
    REQUIRE(reply.reason() == ODX_REASON_SHORT);
    REQUIRE(reply.zeros_beyond());
  }
  SECTION("unaligned: up to the end of its sector") {
    const std::string bytes = pattern(5000, 2);
    const InodeNo ino = world.file("a", bytes);
    const Reply reply = world.read(ino, 0, 1 << 20);
    REQUIRE(reply.error == 0);
    REQUIRE(reply.transfer_length() == 5120);
    REQUIRE(reply.zeros_beyond());
    REQUIRE(world.shown(reply.token(), 5120) == bytes + std::string(120, '\0'));
    REQUIRE(world.read(ino, 4608, kSector).transfer_length() == kSector);
  }
  SECTION("as far as numbers go") {
    const InodeNo ino = world.file("a", pattern(4096, 1));
    const Reply reply = world.read(ino, 0, 0 - kSector);
    REQUIRE(reply.error == 0);
    REQUIRE(reply.transfer_length() == 4096);
  }
  SECTION("2.3-A: an unaligned length that ends at EOF is reported as it is") {
    const InodeNo ino = world.file("a", pattern(5000, 2));
    const Reply reply = world.read(ino, 512, 4488);
    REQUIRE(reply.error == 0);
    REQUIRE(reply.transfer_length() == 4488);
    REQUIRE(reply.reason() == ODX_REASON_NONE);
    REQUIRE(reply.zeros_beyond());
  }
  SECTION("with large sectors") {
    TokenWorld large({.sector = 4096});
    const InodeNo ino = large.file("a", pattern(5000, 2));
    REQUIRE(large.read(ino, 4096, 4096).transfer_length() == 4096);
    require_refused(large.read(ino, 512, 4096), EINVAL, ODX_STATUS_INVALID_PARAMETER,
                    ODX_REASON_FILE_OFFSET_ALIGNMENT);
    large.close();
  }
  world.close();
}

TEST_CASE("holes give the zero token",
          "[token][read][2.1#10][2.1#17][2.1#21][2.3#C][2.3#E][2.3#G][4.4R#17][4.4R#18]"
          "[4.4R#19][4.4R#20]") {
  TokenWorld world;
  // data [0, 64K), hole [64K, 128K), data [128K, 192K), hole [192K, 256K)
  const InodeNo ino = world.file("a", pattern(64 << 10, 1));
  world.write_bytes(ino, 128 << 10, pattern(64 << 10, 2));
  world.truncate(ino, 256 << 10);

  SECTION("a hole with data behind it") {
    const Reply reply = world.read(ino, 64 << 10, 64 << 10);
    REQUIRE(is_zero_token(reply.token()));
    REQUIRE(reply.transfer_length() == 64 << 10);
    REQUIRE_FALSE(reply.zeros_beyond());
  }
  SECTION("2.1#17: the trailing hole") {
    const Reply part = world.read(ino, 200 << 10, 4096);
    REQUIRE(is_zero_token(part.token()));
    REQUIRE(part.transfer_length() == 4096);
    REQUIRE(part.zeros_beyond());
    const Reply rest = world.read(ino, 200 << 10, 1 << 30);
    REQUIRE(is_zero_token(rest.token()));
    REQUIRE(rest.transfer_length() == 56 << 10);
    REQUIRE(rest.zeros_beyond());
  }
  SECTION("2.1#21: nothing but holes behind the range") {
    REQUIRE_FALSE(world.read(ino, 0, 64 << 10).zeros_beyond());
    REQUIRE_FALSE(world.read(ino, 0, 128 << 10).zeros_beyond());
    REQUIRE_FALSE(world.read(ino, 0, (192 << 10) - kSector).zeros_beyond());
    REQUIRE(world.read(ino, 0, 192 << 10).zeros_beyond());
    REQUIRE(world.read(ino, 0, (192 << 10) + kSector).zeros_beyond());
    REQUIRE(world.read(ino, 0, 256 << 10).zeros_beyond());
  }
  SECTION("zeros that were written are data") {
    world.write_bytes(ino, 200 << 10, std::string(4096, '\0'));
    REQUIRE_FALSE(world.read(ino, 0, 192 << 10).zeros_beyond());
    const Reply reply = world.read(ino, 200 << 10, 4096);
    REQUIRE_FALSE(is_zero_token(reply.token()));
    REQUIRE(reply.zeros_beyond());
  }
  SECTION("a range with a byte of data in it is no hole") {
    REQUIRE_FALSE(is_zero_token(world.read(ino, 60 << 10, 64 << 10).token()));
    REQUIRE_FALSE(is_zero_token(world.read(ino, 64 << 10, (64 << 10) + kSector).token()));
  }
  SECTION("no zero token across an unaligned EOF") {
    world.truncate(ino, (256 << 10) + 100);
    const Reply before = world.read(ino, 192 << 10, 64 << 10);
    REQUIRE(is_zero_token(before.token()));
    REQUIRE(before.zeros_beyond());
    for (const std::uint64_t length : {std::uint64_t{64 << 10} + kSector, std::uint64_t{1} << 20,
                                       std::uint64_t{64 << 10} + 100}) {
      const Reply reply = world.read(ino, 192 << 10, length);
      REQUIRE(reply.error == 0);
      REQUIRE(proto::classify(reply.token()) == proto::TokenKind::kOurs);
      REQUIRE(reply.zeros_beyond());
      REQUIRE(world.shown(reply.token(), (64 << 10) + kSector) ==
              std::string((64 << 10) + kSector, '\0'));
    }
  }
  world.close();
}

TEST_CASE("the timer asked for is the timer given, within limits",
          "[token][read][2.5#4][4.4R#27]") {
  TokenWorld world;
  const InodeNo ino = world.file("a", pattern(4096, 1));
  const auto lifetime_ms = [&](std::uint32_t ttl_ms) {
    const TokenId id = id_of(world.token(ino, 0, 4096, ttl_ms));
    for (const odx_token_info& info : ok(world.tokens().list({}, 100, 0))) {
      if (std::memcmp(info.id, id.data(), id.size()) == 0) {
        REQUIRE(info.created_ns == world.clock().now_ns());
        return (info.expires_ns - info.created_ns) / kNsPerMs;
      }
    }
    FAIL("not listed");
    return std::int64_t{0};
  };
  SECTION("by default") {
    REQUIRE(lifetime_ms(0) == 60'000);
    REQUIRE(lifetime_ms(1) == 1);
    REQUIRE(lifetime_ms(1'500) == 1'500);
    REQUIRE(lifetime_ms(600'000) == 600'000);
    REQUIRE(lifetime_ms(600'001) == 600'000);
    REQUIRE(lifetime_ms(0xFFFFFFFF) == 600'000);
  }
  SECTION("as the mount says") {
    world.set_token_options({.ttl_default_ms = 90'000, .ttl_max_ms = 30'000});
    world.reopen();
    REQUIRE(lifetime_ms(0) == 30'000);
    REQUIRE(lifetime_ms(30'001) == 30'000);
  }
  SECTION("whatever the mount says") {
    world.set_token_options({.ttl_default_ms = UINT64_MAX, .ttl_max_ms = UINT64_MAX});
    world.reopen();
    REQUIRE(lifetime_ms(0) == 1'000'000'000'000);
    world.set_token_options({.ttl_default_ms = 0, .ttl_max_ms = 0});
    world.reopen();
    REQUIRE(lifetime_ms(0) == 1);
  }
  world.close();
}

TEST_CASE("a token is a moment, whatever happens to its source",
          "[token][read][2.1#13][2.2#21][2.5#1][4.4W#26][4.4W#27][4.4W#28][4.4W#29][4.4W#30]") {
  TokenWorld world;
  const std::string bytes = pattern(300 << 10, 1);
  const InodeNo ino = world.file("a", bytes);
  const odx_token token = world.token(ino, 0, bytes.size());
  const auto still = [&] { REQUIRE(world.shown(token, bytes.size()) == bytes); };

  SECTION("written") {
    world.write_bytes(ino, 0, pattern(bytes.size(), 2));
    world.write_bytes(ino, 1000, "unaligned");
  }
  SECTION("truncated and grown again") {
    world.truncate(ino, 100);
    still();
    world.truncate(ino, bytes.size());
  }
  SECTION("punched") { world.punch(ino, 0, 200 << 10); }
  SECTION("collapsed and inserted") {
    ok(world.store().files().allocate(ino, Files::AllocateMode::kCollapse, false, FileOffset(4096),
                                      8192));
    ok(world.store().files().allocate(ino, Files::AllocateMode::kInsert, false, FileOffset(0),
                                      4096));
  }
  SECTION("cloned over") {
    const InodeNo other = world.file("b", pattern(bytes.size(), 3));
    ok(world.store().files().copy_range(other, FileOffset(0), ino, FileOffset(0), bytes.size()));
  }
  SECTION("offloaded over") {
    const InodeNo other = world.file("b", pattern(bytes.size(), 3));
    const odx_token theirs = world.token(other, 0, bytes.size());
    REQUIRE(world.write(ino, 0, bytes.size(), theirs).error == 0);
  }
  SECTION("renamed and its mode changed") {
    ok(world.store().names().rename(kRootInode, "a", kRootInode, "z", RenameMode::kReplace));
    ok(world.store().names().change(ino, {.mode = 0}));
  }
  SECTION("removed, and its space wanted by others") {
    world.remove("a");
    world.settle();
    const InodeNo other = world.file("b", pattern(2 << 20, 4));
    world.sync();
    still();
    world.remove("b");
    REQUIRE(other != ino);
  }
  SECTION("removed while open") {
    ok(world.store().names().unlink(kRootInode, "a"));
    // 2.1#13: an open but unlinked file is as good as any.
    const odx_token late = world.token(ino, 0, 4096);
    ok(world.store().names().reap(ino));
    REQUIRE(world.shown(late, 4096) == bytes.substr(0, 4096));
  }
  SECTION("fragmented, then freed bit by bit") {
    for (std::uint64_t at = 0; at < bytes.size(); at += 8192) {
      world.write_bytes(ino, at, "x");
      world.punch(ino, at + 4096, 512);
    }
    world.remove("a");
    world.settle();
  }
  still();
  still();  // as often as wanted
  world.close();
}

TEST_CASE("a read-only store hands out what needs no record", "[token][read][2.1#1]") {
  TokenWorld world;
  const InodeNo ino = world.file("a", pattern(4096, 1));
  world.truncate(ino, 64 << 10);
  const InodeNo tail = world.file("tail");
  world.truncate(tail, 1000);
  world.reopen(true);

  require_refused(world.read(ino, 0, 4096), EROFS, ODX_STATUS_MEDIA_WRITE_PROTECTED,
                  ODX_REASON_READ_ONLY);
  require_refused(world.read(tail, 0, 1024), EROFS, ODX_STATUS_MEDIA_WRITE_PROTECTED,
                  ODX_REASON_READ_ONLY);
  // After all checks.
  require_refused(world.read(ino, 64 << 10, 4096), ENXIO, ODX_STATUS_END_OF_FILE,
                  ODX_REASON_END_OF_FILE);
  require_refused(world.read(ino, 1, 4096), EINVAL, ODX_STATUS_INVALID_PARAMETER,
                  ODX_REASON_FILE_OFFSET_ALIGNMENT);
  const Reply hole = world.read(ino, 8192, 4096);
  REQUIRE(hole.error == 0);
  REQUIRE(is_zero_token(hole.token()));
  REQUIRE(hole.transfer_length() == 4096);
  REQUIRE(hole.zeros_beyond());
  REQUIRE(world.read(ino, 0, 0).reason() == ODX_REASON_ZERO_LENGTH);
  REQUIRE_FALSE(ok(world.tokens().expire()).has_value());
  world.close();
}

}  // namespace
}  // namespace odx::test
