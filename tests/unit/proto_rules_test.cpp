// The rule engine, row by row: tables 2.1 and 2.2 of odx-rules.md, and the cases of section 4.4
// that can be decided without a store.
#include <catch2/catch.hpp>
#include <cerrno>
#include <cstring>
#include <vector>

#include "base/types.hpp"
#include "proto/rules.hpp"
#include "rules_support.hpp"

using namespace odx::proto;
using namespace odx::testing;
using odx::kMaxFileBytes;

// ---- table 2.1, READ ----

TEST_CASE("READ 0c: a descriptor not open for reading is EBADF", "[2.1#0c][4.4R#12]") {
  FileFacts file = regular();
  file.readable = false;
  CHECK(refusal(judge_read(read_call(0, kSector), file)) == kAccess);
  CHECK(refusal(judge_read(read_call(0, 0), file)) == kAccess);
}

TEST_CASE("READ 0d: offload switched off is EPERM", "[2.1#0d]") {
  FileFacts file = regular();
  file.disabled = true;
  CHECK(refusal(judge_read(read_call(0, kSector), file)) ==
        Verdict{EPERM, ODX_STATUS_OFFLOAD_READ_FLT_NOT_SUPPORTED, ODX_REASON_DISABLED});
}

TEST_CASE("READ 2: input shorter than 32 bytes is too small, 0 and more are enough",
          "[2.1#2][4.4R#2]") {
  auto call = read_call(0, kSector);
  for (const std::uint32_t length : {1u, 31u}) {
    call.a.input_length = length;
    CHECK(refusal(judge_read(call, regular())) == kInputSmall);
  }
  for (const std::uint32_t length : {0u, 32u, 33u, 544u, UINT32_MAX}) {
    call.a.input_length = length;
    CHECK(read_plan(call, regular()).transfer_length == kSector);
  }
}

TEST_CASE("READ 3: room for less than 528 bytes is too small, 0 and more are enough",
          "[2.1#3][4.4R#3]") {
  auto call = read_call(0, kSector);
  for (const std::uint32_t room : {1u, 16u, 527u}) {
    call.b.output_room = room;
    CHECK(refusal(judge_read(call, regular())) == kOutputSmall);
  }
  for (const std::uint32_t room : {0u, 528u, 529u, UINT32_MAX}) {
    call.b.output_room = room;
    CHECK(read_plan(call, regular()).transfer_length == kSector);
  }
}

TEST_CASE("READ option bits: SYNC is known, every other one refused", "[2.1#3a]") {
  auto call = read_call(0, kSector);
  CHECK_FALSE(read_plan(call, regular()).sync);
  call.c.options = ODX_TOKEN_SYNC;
  CHECK(read_plan(call, regular()).sync);
  for (int bit = 1; bit < 64; ++bit) {
    call.c.options = 1ULL << bit | ODX_TOKEN_SYNC;
    CHECK(refusal(judge_read(call, regular())) == kEinvalOption);
  }
}

TEST_CASE("READ 4: file offset must be a multiple of the sector", "[2.1#4][4.4R#4]") {
  CHECK(refusal(judge_read(read_call(kSector - 1, kSector), regular())) == kEinvalOffset);
  CHECK(refusal(judge_read(read_call(1, 0), regular())) == kEinvalOffset);
  FileFacts file = regular();
  file.sector = 4096;
  CHECK(refusal(judge_read(read_call(512, 4096), file)) == kEinvalOffset);
  CHECK(read_plan(read_call(4096, 4096), file).offset == 4096);
}

TEST_CASE("READ 5: copy length must be a multiple of the sector or end at EOF (2.3-A)",
          "[2.1#5][2.3#A][4.4R#5][4.4R#6]") {
  CHECK(refusal(judge_read(read_call(0, kSector - 1), regular())) == kEinvalLength);
  CHECK(refusal(judge_read(read_call(kEof, 1), regular())) == kEinvalLength);
  // One byte to either side of EOF is not at EOF.
  CHECK(refusal(judge_read(read_call(0, 999), regular(1000))) == kEinvalLength);
  CHECK(refusal(judge_read(read_call(0, 1001), regular(1000))) == kEinvalLength);

  const ReadPlan plan = read_plan(read_call(0, 1000), regular(1000));
  CHECK(plan.transfer_length == 1000);
  CHECK(plan.length == 1024);
  CHECK(plan.data_length == 1000);
  CHECK(plan.reaches_unaligned_eof);

  const ReadPlan last = read_plan(read_call(kSector, kSector - 1), regular(2 * kSector - 1));
  CHECK(last.transfer_length == kSector - 1);
}

TEST_CASE("READ 6: Size must be 32 exactly", "[2.1#6][4.4R#1]") {
  auto call = read_call(0, kSector);
  for (const std::uint32_t size : {0u, 31u, 33u, 528u, 544u}) {
    call.body.read_in.size = size;
    CHECK(refusal(judge_read(call, regular())) == kEinvalSize);
  }
}

TEST_CASE("READ 7: offset plus length must not wrap", "[2.1#7][4.4R#7]") {
  CHECK(refusal(judge_read(read_call(kHuge, 2 * kSector), regular())) == kEinvalWrap);
  CHECK(refusal(judge_read(read_call(kHuge, kSector), regular())) == kEinvalWrap);
  CHECK(refusal(judge_read(read_call(kSector, kHuge), regular())) == kEinvalWrap);
}

TEST_CASE("READ 8: length 0 succeeds at once", "[2.1#8][4.4R#9][4.4R#10]") {
  CHECK(zero_length(judge_read(read_call(0, 0), regular())));
  CHECK(zero_length(judge_read(read_call(0, 0), regular(0))));
  CHECK(zero_length(judge_read(read_call(kEof + kSector, 0), regular())));
  CHECK(zero_length(judge_read(read_call(kHuge, 0), regular())));
}

TEST_CASE("READ 8 before 9: length 0 succeeds on a directory", "[2.1#8][4.4R#11]") {
  CHECK(zero_length(judge_read(read_call(0, 0), directory())));
}

TEST_CASE("READ 9: a directory is EISDIR, anything else but a file EOPNOTSUPP", "[2.1#9]") {
  const auto status = ODX_STATUS_OFFLOAD_READ_FILE_NOT_SUPPORTED;
  CHECK(refusal(judge_read(read_call(0, kSector), directory())) ==
        Verdict{EISDIR, status, ODX_REASON_NOT_A_FILE});
  FileFacts fifo = regular(0);
  fifo.is_regular = false;
  CHECK(refusal(judge_read(read_call(0, kSector), fifo)) ==
        Verdict{EOPNOTSUPP, status, ODX_REASON_NOT_A_FILE});
}

TEST_CASE("READ 12c: no file is too small", "[2.1#12c][2.3#B]") {
  const ReadPlan plan = read_plan(read_call(0, kSector), regular(1));
  CHECK(plan.transfer_length == kSector);
  CHECK(plan.data_length == 1);
}

TEST_CASE("READ 14: an offset from 2^63 on is negative", "[2.1#14][4.4R#8]") {
  CHECK(refusal(judge_read(read_call(1ULL << 63, kSector), regular())) == kEinvalNegative);
  CHECK(refusal(judge_read(read_call(kHuge - kSector, kSector), regular())) == kEinvalNegative);
  // The last aligned offset below 2^63 is merely beyond EOF.
  CHECK(refusal(judge_read(read_call((1ULL << 63) - kSector, kSector), regular())) == kEndOfFile);
}

TEST_CASE("READ 15: a conflicting lock is EAGAIN", "[2.1#15]") {
  FileFacts file = regular();
  file.range_locked = true;
  CHECK(refusal(judge_read(read_call(0, kSector), file)) == kLocked);
  CHECK(zero_length(judge_read(read_call(0, 0), file)));
}

TEST_CASE("READ 16: an offset at or beyond EOF is ENXIO", "[2.1#16][4.4R#13][4.4R#14]") {
  CHECK(refusal(judge_read(read_call(kEof, kSector), regular())) == kEndOfFile);
  CHECK(refusal(judge_read(read_call(kEof + kSector, kSector), regular())) == kEndOfFile);
  CHECK(refusal(judge_read(read_call(0, kSector), regular(0))) == kEndOfFile);
  CHECK(refusal(judge_read(read_call(1024, kSector), regular(1000))) == kEndOfFile);
  // odx_extend is about destinations only.
  CHECK(refusal(judge_read(read_call(kEof, kSector), extending(kEof))) == kEndOfFile);
}

TEST_CASE("READ 18: the range is trimmed at EOF, rounded up to a sector", "[2.1#18][4.4R#16]") {
  const std::vector<std::uint64_t> lengths{kEof + kSector, 1ULL << 40, 1ULL << 63,
                                           kHuge - 4 * kSector};
  for (const std::uint64_t asked : lengths) {
    const ReadPlan plan = read_plan(read_call(4 * kSector, asked), regular());
    CHECK(plan.transfer_length == kEof - 4 * kSector);
    CHECK(plan.length == kEof - 4 * kSector);
    CHECK(plan.data_length == kEof - 4 * kSector);
    CHECK_FALSE(plan.reaches_unaligned_eof);
  }
  const ReadPlan tail = read_plan(read_call(kSector, 1ULL << 40), regular(1000));
  CHECK(tail.transfer_length == kSector);
  CHECK(tail.data_length == 1000 - kSector);
  CHECK(tail.reaches_unaligned_eof);
}

TEST_CASE("READ 21: an unaligned EOF's sector is reported whole", "[2.1#21][4.4R#15]") {
  const std::uint64_t eof = 3 * kSector + 7;
  const ReadPlan plan = read_plan(read_call(3 * kSector, kSector), regular(eof));
  CHECK(plan.transfer_length == kSector);
  CHECK(plan.data_length == 7);
  CHECK(plan.reaches_unaligned_eof);
  const ReadPlan before = read_plan(read_call(2 * kSector, kSector), regular(eof));
  CHECK(before.data_length == kSector);
  CHECK_FALSE(before.reaches_unaligned_eof);
}

TEST_CASE("READ: the largest file can be read to its end", "[2.1#18]") {
  const ReadPlan plan = read_plan(read_call(0, kHuge), regular(kMaxFileBytes));
  CHECK(plan.data_length == kMaxFileBytes);
  CHECK(plan.transfer_length == 1ULL << 63);
  const ReadPlan exact =
      read_plan(read_call(kSector, kMaxFileBytes - kSector), regular(kMaxFileBytes));
  CHECK(exact.transfer_length == kMaxFileBytes - kSector);
}

TEST_CASE("READ: flags and reserved are ignored, the TTL is passed on", "[4.4R#26][4.4R#27]") {
  auto call = read_call(0, kSector);
  call.body.read_in.flags = UINT32_MAX;
  call.body.read_in.reserved = UINT32_MAX;
  for (const std::uint32_t ttl : {0u, 1u, UINT32_MAX}) {
    call.body.read_in.token_time_to_live = ttl;
    CHECK(read_plan(call, regular()).ttl_ms == ttl);
  }
}

TEST_CASE("TTL: 0 is the default, more than the maximum is lowered to it", "[2.5#4][4.4R#27]") {
  CHECK(effective_ttl_ms(0, 60'000, 600'000) == 60'000);
  CHECK(effective_ttl_ms(1, 60'000, 600'000) == 1);
  CHECK(effective_ttl_ms(600'001, 60'000, 600'000) == 600'000);
  CHECK(effective_ttl_ms(UINT32_MAX, 60'000, 600'000) == 600'000);
  CHECK(effective_ttl_ms(0, 60'000, 5'000) == 5'000);
}

// ---- table 2.2, WRITE ----

TEST_CASE("WRITE 0c: a descriptor not open for writing is EBADF", "[2.2#0c]") {
  FileFacts file = regular();
  file.writable = false;
  CHECK(refusal(judge_write(write_call(0, kSector), file)) == kAccess);
  CHECK(refusal(judge_write(write_call(0, 0), file)) == kAccess);
  FileFacts dir = directory();
  dir.writable = false;
  CHECK(refusal(judge_write(write_call(0, kSector), dir)) == kAccess);
}

TEST_CASE("WRITE 0d: offload switched off is EPERM", "[2.2#0d]") {
  FileFacts file = regular();
  file.disabled = true;
  CHECK(refusal(judge_write(write_call(0, kSector), file)) ==
        Verdict{EPERM, ODX_STATUS_OFFLOAD_WRITE_FLT_NOT_SUPPORTED, ODX_REASON_DISABLED});
}

TEST_CASE("WRITE 1: a read-only filesystem is EROFS, for length 0 too", "[2.2#1][4.4W#7]") {
  FileFacts file = regular();
  file.read_only_fs = true;
  const Verdict read_only{EROFS, ODX_STATUS_MEDIA_WRITE_PROTECTED, ODX_REASON_READ_ONLY};
  CHECK(refusal(judge_write(write_call(0, kSector), file)) == read_only);
  CHECK(refusal(judge_write(write_call(0, 0), file)) == read_only);
  CHECK(read_plan(read_call(0, kSector), file).transfer_length == kSector);
}

TEST_CASE("WRITE 3: input shorter than 544 bytes is too small, 0 and more are enough",
          "[2.2#3][4.4W#2]") {
  auto call = write_call(0, kSector);
  for (const std::uint32_t length : {1u, 32u, 543u}) {
    call.a.input_length = length;
    CHECK(refusal(judge_write(call, regular())) == kInputSmall);
  }
  for (const std::uint32_t length : {0u, 544u, 545u, UINT32_MAX}) {
    call.a.input_length = length;
    CHECK(write_plan(call, regular()).limit == kSector);
  }
}

TEST_CASE("WRITE 4: room for less than 16 bytes is too small, 0 and more are enough",
          "[2.2#4][4.4W#3]") {
  auto call = write_call(0, kSector);
  for (const std::uint32_t room : {1u, 15u}) {
    call.b.output_room = room;
    CHECK(refusal(judge_write(call, regular())) == kOutputSmall);
  }
  for (const std::uint32_t room : {0u, 16u, 17u, 528u}) {
    call.b.output_room = room;
    CHECK(write_plan(call, regular()).limit == kSector);
  }
}

TEST_CASE("WRITE option bits: every one is refused, SYNC included", "[2.2#4a]") {
  auto call = write_call(0, kSector);
  for (int bit = 0; bit < 64; ++bit) {
    call.c.options = 1ULL << bit;
    CHECK(refusal(judge_write(call, regular())) == kEinvalOption);
  }
}

TEST_CASE("WRITE 5: file offset must be a multiple of the sector", "[2.2#5][4.4W#4]") {
  CHECK(refusal(judge_write(write_call(kSector - 1, kSector), regular())) == kEinvalOffset);
  CHECK(refusal(judge_write(write_call(1, 0), regular())) == kEinvalOffset);
}

TEST_CASE("WRITE 6: copy length must be a multiple of the sector or end at EOF (2.3-A)",
          "[2.2#6][2.3#A][4.4W#4]") {
  CHECK(refusal(judge_write(write_call(0, kSector - 1), regular())) == kEinvalLength);
  CHECK(refusal(judge_write(write_call(0, 999), regular(1000))) == kEinvalLength);
  CHECK(refusal(judge_write(write_call(0, 1001), regular(1000))) == kEinvalLength);
  CHECK(write_plan(write_call(0, 1000), regular(1000)).limit == 1000);
  CHECK(write_plan(write_call(kSector, 1000 - kSector), regular(1000)).limit == 1000 - kSector);
  CHECK(write_plan(write_call(0, 1000), extending(1000)).limit == 1000);
  CHECK(refusal(judge_write(write_call(0, 1001), extending(1000))) == kEinvalLength);
}

TEST_CASE("WRITE 7: transfer offset must be a multiple of the sector", "[2.2#7][4.4W#4]") {
  CHECK(refusal(judge_write(write_call(0, kSector, 1), regular())) == kEinvalFrom);
  CHECK(refusal(judge_write(write_call(0, 0, kSector + 1), regular())) == kEinvalFrom);
}

TEST_CASE("WRITE 8: Size must be 544 exactly", "[2.2#8][4.4W#1]") {
  auto call = write_call(0, kSector);
  for (const std::uint32_t size : {0u, 32u, 543u, 545u}) {
    call.body.write_in.size = size;
    CHECK(refusal(judge_write(call, regular())) == kEinvalSize);
  }
}

TEST_CASE("WRITE 9: offset plus length must not wrap", "[2.2#9][4.4W#9]") {
  CHECK(refusal(judge_write(write_call(kHuge, 2 * kSector), regular())) == kEinvalWrap);
  CHECK(refusal(judge_write(write_call(kHuge, kSector), regular())) == kEinvalWrap);
}

TEST_CASE("WRITE 10: length 0 succeeds whatever the token", "[2.2#10][4.4W#6]") {
  auto call = write_call(0, 0);
  for (const int fill : {0x00, 0x5A, 0xFF}) {
    std::memset(&call.body.write_in.token, fill, sizeof(odx_token));
    CHECK(zero_length(judge_write(call, regular())));
    CHECK(zero_length(judge_write(call, regular(0))));
  }
  CHECK(zero_length(judge_write(write_call(kEof + kSector, 0, kHuge), regular())));
}

TEST_CASE("WRITE 10 before 11: length 0 succeeds on a directory", "[2.2#10][4.4W#8]") {
  CHECK(zero_length(judge_write(write_call(0, 0), directory())));
}

TEST_CASE("WRITE 11: a directory is EISDIR, anything else but a file EOPNOTSUPP", "[2.2#11]") {
  const auto status = ODX_STATUS_OFFLOAD_WRITE_FILE_NOT_SUPPORTED;
  CHECK(refusal(judge_write(write_call(0, kSector), directory())) ==
        Verdict{EISDIR, status, ODX_REASON_NOT_A_FILE});
  FileFacts fifo = regular(0);
  fifo.is_regular = false;
  CHECK(refusal(judge_write(write_call(0, kSector), fifo)) ==
        Verdict{EOPNOTSUPP, status, ODX_REASON_NOT_A_FILE});
}

TEST_CASE("WRITE 13: an offset from 2^63 on is negative", "[2.2#13]") {
  CHECK(refusal(judge_write(write_call(1ULL << 63, kSector), regular())) == kEinvalNegative);
}

TEST_CASE("WRITE 14: an end above 2^63 - 1 is EFBIG", "[2.2#14][4.4W#10]") {
  const Verdict too_big{EFBIG, ODX_STATUS_INVALID_PARAMETER, ODX_REASON_FILE_TOO_BIG};
  CHECK(refusal(judge_write(write_call((1ULL << 63) - kSector, kSector), regular())) == too_big);
  CHECK(refusal(judge_write(write_call(0, 1ULL << 63), regular())) == too_big);
  CHECK(write_plan(write_call(0, (1ULL << 63) - kSector), regular()).limit == kEof);
  // Exactly up to the largest file's end is not above it.
  CHECK(write_plan(write_call(kSector, kMaxFileBytes - kSector), regular(kMaxFileBytes)).limit ==
        kMaxFileBytes - kSector);
}

TEST_CASE("WRITE 15: a conflicting lock is EAGAIN", "[2.2#15]") {
  FileFacts file = regular();
  file.range_locked = true;
  CHECK(refusal(judge_write(write_call(0, kSector), file)) == kLocked);
  CHECK(zero_length(judge_write(write_call(0, 0), file)));
}

TEST_CASE("WRITE 17: an offset at or beyond EOF is ENXIO", "[2.2#17][4.4W#11][4.4W#12]") {
  CHECK(refusal(judge_write(write_call(kEof, kSector), regular())) == kEndOfFile);
  CHECK(refusal(judge_write(write_call(kEof + kSector, kSector), regular())) == kEndOfFile);
  CHECK(refusal(judge_write(write_call(0, kSector), regular(0))) == kEndOfFile);
}

TEST_CASE("WRITE 17 with odx_extend: an offset at EOF appends, one beyond it is ENXIO (2.3-D)",
          "[2.2#17][2.3#D]") {
  CHECK(write_plan(write_call(kEof, kSector), extending(kEof)).limit == kSector);
  CHECK(write_plan(write_call(0, 32768), extending(0)).limit == 32768);
  CHECK(refusal(judge_write(write_call(kEof + kSector, kSector), extending(kEof))) == kEndOfFile);
  // The sector boundary after an unaligned EOF is beyond it.
  CHECK(refusal(judge_write(write_call(1024, kSector), extending(1000))) == kEndOfFile);
}

TEST_CASE("WRITE 19-23: what a token that is no good answers",
          "[2.2#19][2.2#20][2.2#22][2.2#23][2.5#6]") {
  const auto answer = [](odx_reason reason) { return verdict_for(reason, Control::kWrite); };
  const auto invalid = ODX_STATUS_INVALID_TOKEN;
  CHECK(answer(ODX_REASON_TOKEN_MALFORMED) ==
        Verdict{EKEYREJECTED, invalid, ODX_REASON_TOKEN_MALFORMED});
  CHECK(answer(ODX_REASON_TOKEN_UNKNOWN) ==
        Verdict{EKEYREJECTED, invalid, ODX_REASON_TOKEN_UNKNOWN});
  CHECK(answer(ODX_REASON_TOKEN_EXPIRED) ==
        Verdict{EKEYEXPIRED, invalid, ODX_REASON_TOKEN_EXPIRED});
  CHECK(answer(ODX_REASON_TOKEN_FOREIGN) ==
        Verdict{EXDEV, ODX_STATUS_DEVICE_UNREACHABLE, ODX_REASON_TOKEN_FOREIGN});
  CHECK(answer(ODX_REASON_TOKEN_RESERVED_TYPE) ==
        Verdict{EKEYREJECTED, invalid, ODX_REASON_TOKEN_RESERVED_TYPE});
  CHECK(answer(ODX_REASON_TOKEN_OTHER_USER) ==
        Verdict{EKEYREJECTED, invalid, ODX_REASON_TOKEN_OTHER_USER});
}

TEST_CASE("WRITE 24: a transfer offset at or beyond the token's end is EINVAL",
          "[2.2#24][4.4W#20][4.4W#21]") {
  const TokenSpan token = span_of(4 * kSector);
  const auto judge = [&](std::uint64_t from) {
    return judge_transfer(write_plan(write_call(0, kSector, from), regular()), regular(), token);
  };
  CHECK(refusal(judge(4 * kSector)) == kEinvalFromRange);
  CHECK(refusal(judge(5 * kSector)) == kEinvalFromRange);
  CHECK(refusal(judge(kHuge)) == kEinvalFromRange);
  CHECK(std::get<TransferPlan>(judge(3 * kSector)).source_offset == 3 * kSector);
}

TEST_CASE("WRITE 24: a range that only ends beyond the token's end is short", "[2.2#24][4.4W#22]") {
  const TransferPlan plan =
      transfer_plan(write_call(kSector, 8 * kSector, 3 * kSector), regular(), span_of(4 * kSector));
  CHECK(plan.length_written == kSector);
  CHECK(plan.destination_offset == kSector);
  CHECK(plan.source_offset == 3 * kSector);
  CHECK(plan.splice_length == kSector);
  CHECK(plan.zero_length == 0);
  CHECK(plan.new_eof == kEof);
}

TEST_CASE("WRITE 25: the zero token zeroes the range without any length of its own", "[2.2#25]") {
  const TransferPlan plan =
      transfer_plan(write_call(0, 4 * kSector, kSector), regular(), ZeroToken{});
  CHECK(plan.length_written == 4 * kSector);
  CHECK(plan.splice_length == 0);
  CHECK(plan.zero_length == 4 * kSector);
  CHECK(plan.new_eof == kEof);
}

TEST_CASE("WRITE 25: the zero token takes any aligned transfer offset that does not wrap",
          "[2.2#24][2.2#25]") {
  const std::uint64_t last = kHuge - 4 * kSector;
  CHECK(transfer_plan(write_call(0, 4 * kSector, last), regular(), ZeroToken{}).zero_length ==
        4 * kSector);
  const WritePlan wraps = write_plan(write_call(0, 4 * kSector, last + kSector), regular());
  CHECK(refusal(judge_transfer(wraps, regular(), ZeroToken{})) == kEinvalFromRange);
}

TEST_CASE("WRITE 26: a range in the middle is moved in full", "[2.2#26]") {
  const TransferPlan plan =
      transfer_plan(write_call(2 * kSector, 4 * kSector, kSector), regular(), span_of(kEof));
  CHECK(plan.length_written == 4 * kSector);
  CHECK(plan.splice_length == 4 * kSector);
  CHECK(plan.zero_length == 0);
  CHECK(plan.source_offset == kSector);
  CHECK(plan.new_eof == kEof);
}

TEST_CASE("WRITE 27: a range across EOF is cut at the rounded EOF, and EOF stays",
          "[2.2#27][4.4W#13]") {
  const TransferPlan plan =
      transfer_plan(write_call(kEof - kSector, 4 * kSector), regular(), span_of(kEof));
  CHECK(plan.length_written == kSector);
  CHECK(plan.splice_length == kSector);
  CHECK(plan.new_eof == kEof);

  const TransferPlan unaligned =
      transfer_plan(write_call(0, 4 * kSector), regular(1000), span_of(kEof));
  CHECK(unaligned.length_written == 1024);
  CHECK(unaligned.splice_length == 1000);
  CHECK(unaligned.zero_length == 0);
  CHECK(unaligned.new_eof == 1000);
}

TEST_CASE("tail token: the rest of its last sector is zeroed if the destination goes on (2.3-E)",
          "[2.3#E]") {
  const TransferPlan plan = transfer_plan(write_call(0, kEof), regular(), span_of(1000));
  CHECK(plan.length_written == 1024);
  CHECK(plan.splice_length == 1000);
  CHECK(plan.zero_length == 24);
  CHECK(plan.new_eof == kEof);
}

TEST_CASE("tail token: zeros end at the destination's EOF", "[2.3#E]") {
  const TransferPlan plan = transfer_plan(write_call(0, 1024), regular(1010), span_of(1000));
  CHECK(plan.length_written == 1024);
  CHECK(plan.splice_length == 1000);
  CHECK(plan.zero_length == 10);
  CHECK(plan.new_eof == 1010);
}

TEST_CASE("tail token: into a file of the same size, rounded or exact as asked", "[2.3#A][2.3#E]") {
  const TransferPlan rounded = transfer_plan(write_call(0, 1024), regular(1000), span_of(1000));
  CHECK(rounded.length_written == 1024);
  CHECK(rounded.splice_length == 1000);
  CHECK(rounded.zero_length == 0);
  CHECK(rounded.new_eof == 1000);
  const TransferPlan exact = transfer_plan(write_call(0, 1000), regular(1000), span_of(1000));
  CHECK(exact.length_written == 1000);
  CHECK(exact.splice_length == 1000);
  CHECK(exact.new_eof == 1000);
}

TEST_CASE("tail token: a span recorded as exactly the tail is judged as whole sectors", "[2.3#E]") {
  const TransferPlan plan = transfer_plan(write_call(0, 1024), regular(), TokenSpan{1000, 1000});
  CHECK(plan.length_written == 1024);
  CHECK(plan.zero_length == 24);
}

TEST_CASE("tail token: the transfer offset is judged against the rounded span", "[2.2#24][2.3#E]") {
  const TransferPlan plan =
      transfer_plan(write_call(0, kSector, kSector), regular(), span_of(1000));
  CHECK(plan.length_written == kSector);
  CHECK(plan.splice_length == 1000 - kSector);
  CHECK(plan.zero_length == 24);
  const WritePlan beyond = write_plan(write_call(0, kSector, 1024), regular());
  CHECK(refusal(judge_transfer(beyond, regular(), span_of(1000))) == kEinvalFromRange);
}

TEST_CASE("odx_extend: a new empty file grows by what is written", "[2.3#D][4.1#5]") {
  const TransferPlan plan = transfer_plan(write_call(0, 32768), extending(0), span_of(32768));
  CHECK(plan.length_written == 32768);
  CHECK(plan.splice_length == 32768);
  CHECK(plan.new_eof == 32768);
}

TEST_CASE("odx_extend: the file ends where the source ended, though whole sectors are reported",
          "[2.3#D][2.3#E]") {
  const TransferPlan plan = transfer_plan(write_call(0, 1024), extending(0), span_of(1000));
  CHECK(plan.length_written == 1024);
  CHECK(plan.splice_length == 1000);
  CHECK(plan.zero_length == 0);
  CHECK(plan.new_eof == 1000);
}

TEST_CASE("odx_extend: a destination that ends inside the tail sector gets zeros to its EOF",
          "[2.3#D][2.3#E]") {
  const TransferPlan plan = transfer_plan(write_call(0, 1024), extending(1010), span_of(1000));
  CHECK(plan.splice_length == 1000);
  CHECK(plan.zero_length == 10);
  CHECK(plan.new_eof == 1010);
}

TEST_CASE("odx_extend: a range across EOF extends the file", "[2.3#D]") {
  const TransferPlan plan =
      transfer_plan(write_call(kEof - kSector, 4 * kSector), extending(kEof), span_of(kEof));
  CHECK(plan.length_written == 4 * kSector);
  CHECK(plan.splice_length == 4 * kSector);
  CHECK(plan.new_eof == kEof + 3 * kSector);
}

TEST_CASE("odx_extend: the zero token extends by whole sectors", "[2.3#D][2.2#25]") {
  const TransferPlan plan =
      transfer_plan(write_call(kEof, 2 * kSector), extending(kEof), ZeroToken{});
  CHECK(plan.zero_length == 2 * kSector);
  CHECK(plan.new_eof == kEof + 2 * kSector);
}

TEST_CASE("zero token in strict mode ends at EOF but reports the whole sector",
          "[2.2#25][2.2#27]") {
  const TransferPlan plan = transfer_plan(write_call(0, kEof), regular(1000), ZeroToken{});
  CHECK(plan.length_written == 1024);
  CHECK(plan.zero_length == 1000);
  CHECK(plan.new_eof == 1000);
}
