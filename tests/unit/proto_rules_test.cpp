// The rule engine, row by row: tables 2.1 and 2.2 of odx-rules.md, the order of the checks, and the
// cases of section 4.4 that can be decided without a store.
#include "proto/rules.hpp"

#include <rapidcheck.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "base/types.hpp"
#include "proto/token_codec.hpp"

using namespace odx::proto;
using odx::kMaxFileBytes;

namespace {

constexpr std::uint64_t kSector = 512;
constexpr std::uint64_t kEof = 16 * kSector;
constexpr std::uint64_t kHuge = UINT64_MAX - kSector + 1;  // the largest whole number of sectors

FileFacts regular(std::uint64_t eof = kEof) {
  FileFacts file;
  file.is_regular = true;
  file.readable = true;
  file.writable = true;
  file.sector = kSector;
  file.eof = eof;
  return file;
}

FileFacts directory() {
  FileFacts file = regular(0);
  file.is_regular = false;
  file.is_directory = true;
  return file;
}

FileFacts extending(std::uint64_t eof) {
  FileFacts file = regular(eof);
  file.extend_allowed = true;
  return file;
}

odx_offload read_call(std::uint64_t offset, std::uint64_t length) {
  odx_offload call{};
  call.body.read_in.size = sizeof(odx_read_input);
  call.body.read_in.file_offset = offset;
  call.body.read_in.copy_length = length;
  return call;
}

odx_offload write_call(std::uint64_t offset, std::uint64_t length, std::uint64_t from = 0) {
  odx_offload call{};
  call.body.write_in.size = sizeof(odx_write_input);
  call.body.write_in.file_offset = offset;
  call.body.write_in.copy_length = length;
  call.body.write_in.transfer_offset = from;
  call.body.write_in.token = zero_token();
  return call;
}

Verdict refusal(const ReadJudgement& judgement) {
  REQUIRE(std::holds_alternative<Verdict>(judgement));
  return std::get<Verdict>(judgement);
}
Verdict refusal(const WriteJudgement& judgement) {
  REQUIRE(std::holds_alternative<Verdict>(judgement));
  return std::get<Verdict>(judgement);
}
Verdict refusal(const TransferJudgement& judgement) {
  REQUIRE(std::holds_alternative<Verdict>(judgement));
  return std::get<Verdict>(judgement);
}

ReadPlan read_plan(const odx_offload& call, const FileFacts& file) {
  const auto judgement = judge_read(call, file);
  REQUIRE(std::holds_alternative<ReadPlan>(judgement));
  return std::get<ReadPlan>(judgement);
}
WritePlan write_plan(const odx_offload& call, const FileFacts& file) {
  const auto judgement = judge_write(call, file);
  REQUIRE(std::holds_alternative<WritePlan>(judgement));
  return std::get<WritePlan>(judgement);
}
TransferPlan transfer_plan(const odx_offload& call, const FileFacts& file,
                           const TokenContent& token) {
  const auto judgement = judge_transfer(write_plan(call, file), file, token);
  REQUIRE(std::holds_alternative<TransferPlan>(judgement));
  return std::get<TransferPlan>(judgement);
}

bool zero_length(const ReadJudgement& judgement) {
  return std::holds_alternative<ReadZeroLength>(judgement);
}
bool zero_length(const WriteJudgement& judgement) {
  return std::holds_alternative<WriteZeroLength>(judgement);
}

// A token over `data` bytes of which the last sector may be partly beyond its source's EOF.
TokenSpan span_of(std::uint64_t data) { return {odx::round_up(data, kSector), data}; }

const Verdict kEinvalSize{EINVAL, ODX_STATUS_INVALID_PARAMETER, ODX_REASON_STRUCTURE_SIZE};
const Verdict kEinvalWrap{EINVAL, ODX_STATUS_INVALID_PARAMETER, ODX_REASON_RANGE_WRAPS};
const Verdict kEinvalNegative{EINVAL, ODX_STATUS_INVALID_PARAMETER, ODX_REASON_OFFSET_NEGATIVE};
const Verdict kEinvalOffset{EINVAL, ODX_STATUS_INVALID_PARAMETER, ODX_REASON_FILE_OFFSET_ALIGNMENT};
const Verdict kEinvalLength{EINVAL, ODX_STATUS_INVALID_PARAMETER, ODX_REASON_COPY_LENGTH_ALIGNMENT};
const Verdict kEinvalFrom{EINVAL, ODX_STATUS_INVALID_PARAMETER,
                          ODX_REASON_TRANSFER_OFFSET_ALIGNMENT};
const Verdict kEinvalFromRange{EINVAL, ODX_STATUS_INVALID_PARAMETER,
                               ODX_REASON_TRANSFER_OFFSET_RANGE};
const Verdict kEinvalOption{EINVAL, ODX_STATUS_INVALID_PARAMETER, ODX_REASON_UNKNOWN_OPTION};
const Verdict kInputSmall{EINVAL, ODX_STATUS_BUFFER_TOO_SMALL, ODX_REASON_INPUT_TOO_SMALL};
const Verdict kOutputSmall{EINVAL, ODX_STATUS_BUFFER_TOO_SMALL, ODX_REASON_OUTPUT_TOO_SMALL};
const Verdict kAccess{EBADF, ODX_STATUS_ACCESS_DENIED, ODX_REASON_ACCESS_MODE};
const Verdict kLocked{EAGAIN, ODX_STATUS_FILE_LOCK_CONFLICT, ODX_REASON_LOCKED};
const Verdict kEndOfFile{ENXIO, ODX_STATUS_END_OF_FILE, ODX_REASON_END_OF_FILE};

}  // namespace

// ---- table 2.1, READ ----

TEST_CASE("READ 0c: a descriptor not open for reading is EBADF") {
  FileFacts file = regular();
  file.readable = false;
  CHECK(refusal(judge_read(read_call(0, kSector), file)) == kAccess);
  CHECK(refusal(judge_read(read_call(0, 0), file)) == kAccess);
}

TEST_CASE("READ 0d: offload switched off is EPERM") {
  FileFacts file = regular();
  file.disabled = true;
  CHECK(refusal(judge_read(read_call(0, kSector), file)) ==
        Verdict{EPERM, ODX_STATUS_OFFLOAD_READ_FLT_NOT_SUPPORTED, ODX_REASON_DISABLED});
}

TEST_CASE("READ 2: input shorter than 32 bytes is too small, 0 and more are enough") {
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

TEST_CASE("READ 3: room for less than 528 bytes is too small, 0 and more are enough") {
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

TEST_CASE("READ option bits: SYNC is known, every other one refused") {
  auto call = read_call(0, kSector);
  CHECK_FALSE(read_plan(call, regular()).sync);
  call.c.options = ODX_TOKEN_SYNC;
  CHECK(read_plan(call, regular()).sync);
  for (int bit = 1; bit < 64; ++bit) {
    call.c.options = 1ULL << bit | ODX_TOKEN_SYNC;
    CHECK(refusal(judge_read(call, regular())) == kEinvalOption);
  }
}

TEST_CASE("READ 4: file offset must be a multiple of the sector") {
  CHECK(refusal(judge_read(read_call(kSector - 1, kSector), regular())) == kEinvalOffset);
  CHECK(refusal(judge_read(read_call(1, 0), regular())) == kEinvalOffset);
  FileFacts file = regular();
  file.sector = 4096;
  CHECK(refusal(judge_read(read_call(512, 4096), file)) == kEinvalOffset);
  CHECK(read_plan(read_call(4096, 4096), file).offset == 4096);
}

TEST_CASE("READ 5: copy length must be a multiple of the sector or end at EOF (2.3-A)") {
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

TEST_CASE("READ 6: Size must be 32 exactly") {
  auto call = read_call(0, kSector);
  for (const std::uint32_t size : {0u, 31u, 33u, 528u, 544u}) {
    call.body.read_in.size = size;
    CHECK(refusal(judge_read(call, regular())) == kEinvalSize);
  }
}

TEST_CASE("READ 7: offset plus length must not wrap") {
  CHECK(refusal(judge_read(read_call(kHuge, 2 * kSector), regular())) == kEinvalWrap);
  CHECK(refusal(judge_read(read_call(kHuge, kSector), regular())) == kEinvalWrap);
  CHECK(refusal(judge_read(read_call(kSector, kHuge), regular())) == kEinvalWrap);
}

TEST_CASE("READ 8: length 0 succeeds at once") {
  CHECK(zero_length(judge_read(read_call(0, 0), regular())));
  CHECK(zero_length(judge_read(read_call(0, 0), regular(0))));
  CHECK(zero_length(judge_read(read_call(kEof + kSector, 0), regular())));
  CHECK(zero_length(judge_read(read_call(kHuge, 0), regular())));
}

TEST_CASE("READ 8 before 9: length 0 succeeds on a directory") {
  CHECK(zero_length(judge_read(read_call(0, 0), directory())));
}

TEST_CASE("READ 9: a directory is EISDIR, anything else but a file EOPNOTSUPP") {
  const auto status = ODX_STATUS_OFFLOAD_READ_FILE_NOT_SUPPORTED;
  CHECK(refusal(judge_read(read_call(0, kSector), directory())) ==
        Verdict{EISDIR, status, ODX_REASON_NOT_A_FILE});
  FileFacts fifo = regular(0);
  fifo.is_regular = false;
  CHECK(refusal(judge_read(read_call(0, kSector), fifo)) ==
        Verdict{EOPNOTSUPP, status, ODX_REASON_NOT_A_FILE});
}

TEST_CASE("READ 12c: no file is too small") {
  const ReadPlan plan = read_plan(read_call(0, kSector), regular(1));
  CHECK(plan.transfer_length == kSector);
  CHECK(plan.data_length == 1);
}

TEST_CASE("READ 14: an offset from 2^63 on is negative") {
  CHECK(refusal(judge_read(read_call(1ULL << 63, kSector), regular())) == kEinvalNegative);
  CHECK(refusal(judge_read(read_call(kHuge - kSector, kSector), regular())) == kEinvalNegative);
  // The last aligned offset below 2^63 is merely beyond EOF.
  CHECK(refusal(judge_read(read_call((1ULL << 63) - kSector, kSector), regular())) == kEndOfFile);
}

TEST_CASE("READ 15: a conflicting lock is EAGAIN") {
  FileFacts file = regular();
  file.range_locked = true;
  CHECK(refusal(judge_read(read_call(0, kSector), file)) == kLocked);
  CHECK(zero_length(judge_read(read_call(0, 0), file)));
}

TEST_CASE("READ 16: an offset at or beyond EOF is ENXIO") {
  CHECK(refusal(judge_read(read_call(kEof, kSector), regular())) == kEndOfFile);
  CHECK(refusal(judge_read(read_call(kEof + kSector, kSector), regular())) == kEndOfFile);
  CHECK(refusal(judge_read(read_call(0, kSector), regular(0))) == kEndOfFile);
  CHECK(refusal(judge_read(read_call(1024, kSector), regular(1000))) == kEndOfFile);
  // odx_extend is about destinations only.
  CHECK(refusal(judge_read(read_call(kEof, kSector), extending(kEof))) == kEndOfFile);
}

TEST_CASE("READ 18: the range is trimmed at EOF, rounded up to a sector") {
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

TEST_CASE("READ 21: an unaligned EOF's sector is reported whole") {
  const std::uint64_t eof = 3 * kSector + 7;
  const ReadPlan plan = read_plan(read_call(3 * kSector, kSector), regular(eof));
  CHECK(plan.transfer_length == kSector);
  CHECK(plan.data_length == 7);
  CHECK(plan.reaches_unaligned_eof);
  const ReadPlan before = read_plan(read_call(2 * kSector, kSector), regular(eof));
  CHECK(before.data_length == kSector);
  CHECK_FALSE(before.reaches_unaligned_eof);
}

TEST_CASE("READ: the largest file can be read to its end") {
  const ReadPlan plan = read_plan(read_call(0, kHuge), regular(kMaxFileBytes));
  CHECK(plan.data_length == kMaxFileBytes);
  CHECK(plan.transfer_length == 1ULL << 63);
  const ReadPlan exact =
      read_plan(read_call(kSector, kMaxFileBytes - kSector), regular(kMaxFileBytes));
  CHECK(exact.transfer_length == kMaxFileBytes - kSector);
}

TEST_CASE("READ: flags and reserved are ignored, the TTL is passed on") {
  auto call = read_call(0, kSector);
  call.body.read_in.flags = UINT32_MAX;
  call.body.read_in.reserved = UINT32_MAX;
  for (const std::uint32_t ttl : {0u, 1u, UINT32_MAX}) {
    call.body.read_in.token_time_to_live = ttl;
    CHECK(read_plan(call, regular()).ttl_ms == ttl);
  }
}

TEST_CASE("TTL: 0 is the default, more than the maximum is lowered to it") {
  CHECK(effective_ttl_ms(0, 60'000, 600'000) == 60'000);
  CHECK(effective_ttl_ms(1, 60'000, 600'000) == 1);
  CHECK(effective_ttl_ms(600'001, 60'000, 600'000) == 600'000);
  CHECK(effective_ttl_ms(UINT32_MAX, 60'000, 600'000) == 600'000);
  CHECK(effective_ttl_ms(0, 60'000, 5'000) == 5'000);
}

// ---- table 2.2, WRITE ----

TEST_CASE("WRITE 0c: a descriptor not open for writing is EBADF") {
  FileFacts file = regular();
  file.writable = false;
  CHECK(refusal(judge_write(write_call(0, kSector), file)) == kAccess);
  CHECK(refusal(judge_write(write_call(0, 0), file)) == kAccess);
  FileFacts dir = directory();
  dir.writable = false;
  CHECK(refusal(judge_write(write_call(0, kSector), dir)) == kAccess);
}

TEST_CASE("WRITE 0d: offload switched off is EPERM") {
  FileFacts file = regular();
  file.disabled = true;
  CHECK(refusal(judge_write(write_call(0, kSector), file)) ==
        Verdict{EPERM, ODX_STATUS_OFFLOAD_WRITE_FLT_NOT_SUPPORTED, ODX_REASON_DISABLED});
}

TEST_CASE("WRITE 1: a read-only filesystem is EROFS, for length 0 too") {
  FileFacts file = regular();
  file.read_only_fs = true;
  const Verdict read_only{EROFS, ODX_STATUS_MEDIA_WRITE_PROTECTED, ODX_REASON_READ_ONLY};
  CHECK(refusal(judge_write(write_call(0, kSector), file)) == read_only);
  CHECK(refusal(judge_write(write_call(0, 0), file)) == read_only);
  CHECK(read_plan(read_call(0, kSector), file).transfer_length == kSector);
}

TEST_CASE("WRITE 3: input shorter than 544 bytes is too small, 0 and more are enough") {
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

TEST_CASE("WRITE 4: room for less than 16 bytes is too small, 0 and more are enough") {
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

TEST_CASE("WRITE option bits: every one is refused, SYNC included") {
  auto call = write_call(0, kSector);
  for (int bit = 0; bit < 64; ++bit) {
    call.c.options = 1ULL << bit;
    CHECK(refusal(judge_write(call, regular())) == kEinvalOption);
  }
}

TEST_CASE("WRITE 5: file offset must be a multiple of the sector") {
  CHECK(refusal(judge_write(write_call(kSector - 1, kSector), regular())) == kEinvalOffset);
  CHECK(refusal(judge_write(write_call(1, 0), regular())) == kEinvalOffset);
}

TEST_CASE("WRITE 6: copy length must be a multiple of the sector or end at EOF (2.3-A)") {
  CHECK(refusal(judge_write(write_call(0, kSector - 1), regular())) == kEinvalLength);
  CHECK(refusal(judge_write(write_call(0, 999), regular(1000))) == kEinvalLength);
  CHECK(refusal(judge_write(write_call(0, 1001), regular(1000))) == kEinvalLength);
  CHECK(write_plan(write_call(0, 1000), regular(1000)).limit == 1000);
  CHECK(write_plan(write_call(kSector, 1000 - kSector), regular(1000)).limit == 1000 - kSector);
  CHECK(write_plan(write_call(0, 1000), extending(1000)).limit == 1000);
  CHECK(refusal(judge_write(write_call(0, 1001), extending(1000))) == kEinvalLength);
}

TEST_CASE("WRITE 7: transfer offset must be a multiple of the sector") {
  CHECK(refusal(judge_write(write_call(0, kSector, 1), regular())) == kEinvalFrom);
  CHECK(refusal(judge_write(write_call(0, 0, kSector + 1), regular())) == kEinvalFrom);
}

TEST_CASE("WRITE 8: Size must be 544 exactly") {
  auto call = write_call(0, kSector);
  for (const std::uint32_t size : {0u, 32u, 543u, 545u}) {
    call.body.write_in.size = size;
    CHECK(refusal(judge_write(call, regular())) == kEinvalSize);
  }
}

TEST_CASE("WRITE 9: offset plus length must not wrap") {
  CHECK(refusal(judge_write(write_call(kHuge, 2 * kSector), regular())) == kEinvalWrap);
  CHECK(refusal(judge_write(write_call(kHuge, kSector), regular())) == kEinvalWrap);
}

TEST_CASE("WRITE 10: length 0 succeeds whatever the token") {
  auto call = write_call(0, 0);
  for (const int fill : {0x00, 0x5A, 0xFF}) {
    std::memset(&call.body.write_in.token, fill, sizeof(odx_token));
    CHECK(zero_length(judge_write(call, regular())));
    CHECK(zero_length(judge_write(call, regular(0))));
  }
  CHECK(zero_length(judge_write(write_call(kEof + kSector, 0, kHuge), regular())));
}

TEST_CASE("WRITE 10 before 11: length 0 succeeds on a directory") {
  CHECK(zero_length(judge_write(write_call(0, 0), directory())));
}

TEST_CASE("WRITE 11: a directory is EISDIR, anything else but a file EOPNOTSUPP") {
  const auto status = ODX_STATUS_OFFLOAD_WRITE_FILE_NOT_SUPPORTED;
  CHECK(refusal(judge_write(write_call(0, kSector), directory())) ==
        Verdict{EISDIR, status, ODX_REASON_NOT_A_FILE});
  FileFacts fifo = regular(0);
  fifo.is_regular = false;
  CHECK(refusal(judge_write(write_call(0, kSector), fifo)) ==
        Verdict{EOPNOTSUPP, status, ODX_REASON_NOT_A_FILE});
}

TEST_CASE("WRITE 13: an offset from 2^63 on is negative") {
  CHECK(refusal(judge_write(write_call(1ULL << 63, kSector), regular())) == kEinvalNegative);
}

TEST_CASE("WRITE 14: an end above 2^63 - 1 is EFBIG") {
  const Verdict too_big{EFBIG, ODX_STATUS_INVALID_PARAMETER, ODX_REASON_FILE_TOO_BIG};
  CHECK(refusal(judge_write(write_call((1ULL << 63) - kSector, kSector), regular())) == too_big);
  CHECK(refusal(judge_write(write_call(0, 1ULL << 63), regular())) == too_big);
  CHECK(write_plan(write_call(0, (1ULL << 63) - kSector), regular()).limit == kEof);
  // Exactly up to the largest file's end is not above it.
  CHECK(write_plan(write_call(kSector, kMaxFileBytes - kSector), regular(kMaxFileBytes)).limit ==
        kMaxFileBytes - kSector);
}

TEST_CASE("WRITE 15: a conflicting lock is EAGAIN") {
  FileFacts file = regular();
  file.range_locked = true;
  CHECK(refusal(judge_write(write_call(0, kSector), file)) == kLocked);
  CHECK(zero_length(judge_write(write_call(0, 0), file)));
}

TEST_CASE("WRITE 17: an offset at or beyond EOF is ENXIO") {
  CHECK(refusal(judge_write(write_call(kEof, kSector), regular())) == kEndOfFile);
  CHECK(refusal(judge_write(write_call(kEof + kSector, kSector), regular())) == kEndOfFile);
  CHECK(refusal(judge_write(write_call(0, kSector), regular(0))) == kEndOfFile);
}

TEST_CASE("WRITE 17 with odx_extend: an offset at EOF appends, one beyond it is ENXIO (2.3-D)") {
  CHECK(write_plan(write_call(kEof, kSector), extending(kEof)).limit == kSector);
  CHECK(write_plan(write_call(0, 32768), extending(0)).limit == 32768);
  CHECK(refusal(judge_write(write_call(kEof + kSector, kSector), extending(kEof))) == kEndOfFile);
  // The sector boundary after an unaligned EOF is beyond it.
  CHECK(refusal(judge_write(write_call(1024, kSector), extending(1000))) == kEndOfFile);
}

TEST_CASE("WRITE 19-23: what a token that is no good answers") {
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

TEST_CASE("WRITE 24: a transfer offset at or beyond the token's end is EINVAL") {
  const TokenSpan token = span_of(4 * kSector);
  const auto judge = [&](std::uint64_t from) {
    return judge_transfer(write_plan(write_call(0, kSector, from), regular()), regular(), token);
  };
  CHECK(refusal(judge(4 * kSector)) == kEinvalFromRange);
  CHECK(refusal(judge(5 * kSector)) == kEinvalFromRange);
  CHECK(refusal(judge(kHuge)) == kEinvalFromRange);
  CHECK(std::get<TransferPlan>(judge(3 * kSector)).source_offset == 3 * kSector);
}

TEST_CASE("WRITE 24: a range that only ends beyond the token's end is short") {
  const TransferPlan plan =
      transfer_plan(write_call(kSector, 8 * kSector, 3 * kSector), regular(), span_of(4 * kSector));
  CHECK(plan.length_written == kSector);
  CHECK(plan.destination_offset == kSector);
  CHECK(plan.source_offset == 3 * kSector);
  CHECK(plan.splice_length == kSector);
  CHECK(plan.zero_length == 0);
  CHECK(plan.new_eof == kEof);
}

TEST_CASE("WRITE 25: the zero token zeroes the range without any length of its own") {
  const TransferPlan plan =
      transfer_plan(write_call(0, 4 * kSector, kSector), regular(), ZeroToken{});
  CHECK(plan.length_written == 4 * kSector);
  CHECK(plan.splice_length == 0);
  CHECK(plan.zero_length == 4 * kSector);
  CHECK(plan.new_eof == kEof);
}

TEST_CASE("WRITE 25: the zero token takes any aligned transfer offset that does not wrap") {
  const std::uint64_t last = kHuge - 4 * kSector;
  CHECK(transfer_plan(write_call(0, 4 * kSector, last), regular(), ZeroToken{}).zero_length ==
        4 * kSector);
  const WritePlan wraps = write_plan(write_call(0, 4 * kSector, last + kSector), regular());
  CHECK(refusal(judge_transfer(wraps, regular(), ZeroToken{})) == kEinvalFromRange);
}

TEST_CASE("WRITE 26: a range in the middle is moved in full") {
  const TransferPlan plan =
      transfer_plan(write_call(2 * kSector, 4 * kSector, kSector), regular(), span_of(kEof));
  CHECK(plan.length_written == 4 * kSector);
  CHECK(plan.splice_length == 4 * kSector);
  CHECK(plan.zero_length == 0);
  CHECK(plan.source_offset == kSector);
  CHECK(plan.new_eof == kEof);
}

TEST_CASE("WRITE 27: a range across EOF is cut at the rounded EOF, and EOF stays") {
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

TEST_CASE("tail token: the rest of its last sector is zeroed if the destination goes on (2.3-E)") {
  const TransferPlan plan = transfer_plan(write_call(0, kEof), regular(), span_of(1000));
  CHECK(plan.length_written == 1024);
  CHECK(plan.splice_length == 1000);
  CHECK(plan.zero_length == 24);
  CHECK(plan.new_eof == kEof);
}

TEST_CASE("tail token: zeros end at the destination's EOF") {
  const TransferPlan plan = transfer_plan(write_call(0, 1024), regular(1010), span_of(1000));
  CHECK(plan.length_written == 1024);
  CHECK(plan.splice_length == 1000);
  CHECK(plan.zero_length == 10);
  CHECK(plan.new_eof == 1010);
}

TEST_CASE("tail token: into a file of the same size, rounded or exact as asked") {
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

TEST_CASE("tail token: a span recorded as exactly the tail is judged as whole sectors") {
  const TransferPlan plan = transfer_plan(write_call(0, 1024), regular(), TokenSpan{1000, 1000});
  CHECK(plan.length_written == 1024);
  CHECK(plan.zero_length == 24);
}

TEST_CASE("tail token: the transfer offset is judged against the rounded span") {
  const TransferPlan plan =
      transfer_plan(write_call(0, kSector, kSector), regular(), span_of(1000));
  CHECK(plan.length_written == kSector);
  CHECK(plan.splice_length == 1000 - kSector);
  CHECK(plan.zero_length == 24);
  const WritePlan beyond = write_plan(write_call(0, kSector, 1024), regular());
  CHECK(refusal(judge_transfer(beyond, regular(), span_of(1000))) == kEinvalFromRange);
}

TEST_CASE("odx_extend: a new empty file grows by what is written") {
  const TransferPlan plan = transfer_plan(write_call(0, 32768), extending(0), span_of(32768));
  CHECK(plan.length_written == 32768);
  CHECK(plan.splice_length == 32768);
  CHECK(plan.new_eof == 32768);
}

TEST_CASE("odx_extend: the file ends where the source ended, though whole sectors are reported") {
  const TransferPlan plan = transfer_plan(write_call(0, 1024), extending(0), span_of(1000));
  CHECK(plan.length_written == 1024);
  CHECK(plan.splice_length == 1000);
  CHECK(plan.zero_length == 0);
  CHECK(plan.new_eof == 1000);
}

TEST_CASE("odx_extend: a destination that ends inside the tail sector gets zeros to its EOF") {
  const TransferPlan plan = transfer_plan(write_call(0, 1024), extending(1010), span_of(1000));
  CHECK(plan.splice_length == 1000);
  CHECK(plan.zero_length == 10);
  CHECK(plan.new_eof == 1010);
}

TEST_CASE("odx_extend: a range across EOF extends the file") {
  const TransferPlan plan =
      transfer_plan(write_call(kEof - kSector, 4 * kSector), extending(kEof), span_of(kEof));
  CHECK(plan.length_written == 4 * kSector);
  CHECK(plan.splice_length == 4 * kSector);
  CHECK(plan.new_eof == kEof + 3 * kSector);
}

TEST_CASE("odx_extend: the zero token extends by whole sectors") {
  const TransferPlan plan =
      transfer_plan(write_call(kEof, 2 * kSector), extending(kEof), ZeroToken{});
  CHECK(plan.zero_length == 2 * kSector);
  CHECK(plan.new_eof == kEof + 2 * kSector);
}

TEST_CASE("zero token in strict mode ends at EOF but reports the whole sector") {
  const TransferPlan plan = transfer_plan(write_call(0, kEof), regular(1000), ZeroToken{});
  CHECK(plan.length_written == 1024);
  CHECK(plan.zero_length == 1000);
  CHECK(plan.new_eof == 1000);
}

// ---- order ----

namespace {

// Violations in the order of the tables. Any two (or more) at once: the earliest answers.
struct Violation {
  odx_reason reason;
  std::function<void(odx_offload&, FileFacts&)> apply;
};

const std::vector<Violation> kReadViolations{
    {ODX_REASON_ACCESS_MODE, [](auto&, auto& f) { f.readable = false; }},
    {ODX_REASON_DISABLED, [](auto&, auto& f) { f.disabled = true; }},
    {ODX_REASON_INPUT_TOO_SMALL, [](auto& c, auto&) { c.a.input_length = 31; }},
    {ODX_REASON_OUTPUT_TOO_SMALL, [](auto& c, auto&) { c.b.output_room = 527; }},
    {ODX_REASON_UNKNOWN_OPTION, [](auto& c, auto&) { c.c.options = 2; }},
    {ODX_REASON_FILE_OFFSET_ALIGNMENT, [](auto& c, auto&) { c.body.read_in.file_offset |= 1; }},
    {ODX_REASON_COPY_LENGTH_ALIGNMENT, [](auto& c, auto&) { c.body.read_in.copy_length |= 1; }},
    {ODX_REASON_STRUCTURE_SIZE, [](auto& c, auto&) { c.body.read_in.size = 33; }},
    {ODX_REASON_RANGE_WRAPS,
     [](auto& c, auto&) {
       c.body.read_in.file_offset |= kHuge;
       c.body.read_in.copy_length += 2 * kSector;
     }},
    {ODX_REASON_NOT_A_FILE, [](auto&, auto& f) { f.is_regular = false; }},
    {ODX_REASON_OFFSET_NEGATIVE, [](auto& c, auto&) { c.body.read_in.file_offset = 1ULL << 63; }},
    {ODX_REASON_LOCKED, [](auto&, auto& f) { f.range_locked = true; }},
    {ODX_REASON_END_OF_FILE, [](auto& c, auto&) { c.body.read_in.file_offset |= 1ULL << 40; }},
};

const std::vector<Violation> kWriteViolations{
    {ODX_REASON_ACCESS_MODE, [](auto&, auto& f) { f.writable = false; }},
    {ODX_REASON_DISABLED, [](auto&, auto& f) { f.disabled = true; }},
    {ODX_REASON_READ_ONLY, [](auto&, auto& f) { f.read_only_fs = true; }},
    {ODX_REASON_INPUT_TOO_SMALL, [](auto& c, auto&) { c.a.input_length = 543; }},
    {ODX_REASON_OUTPUT_TOO_SMALL, [](auto& c, auto&) { c.b.output_room = 15; }},
    {ODX_REASON_UNKNOWN_OPTION, [](auto& c, auto&) { c.c.options = ODX_TOKEN_SYNC; }},
    {ODX_REASON_FILE_OFFSET_ALIGNMENT, [](auto& c, auto&) { c.body.write_in.file_offset |= 1; }},
    {ODX_REASON_COPY_LENGTH_ALIGNMENT, [](auto& c, auto&) { c.body.write_in.copy_length |= 1; }},
    {ODX_REASON_TRANSFER_OFFSET_ALIGNMENT,
     [](auto& c, auto&) { c.body.write_in.transfer_offset |= 1; }},
    {ODX_REASON_STRUCTURE_SIZE, [](auto& c, auto&) { c.body.write_in.size = 543; }},
    {ODX_REASON_RANGE_WRAPS,
     [](auto& c, auto&) {
       c.body.write_in.file_offset |= kHuge;
       c.body.write_in.copy_length += 2 * kSector;
     }},
    {ODX_REASON_NOT_A_FILE, [](auto&, auto& f) { f.is_regular = false; }},
    {ODX_REASON_OFFSET_NEGATIVE, [](auto& c, auto&) { c.body.write_in.file_offset = 1ULL << 63; }},
    {ODX_REASON_FILE_TOO_BIG,
     [](auto& c, auto&) { c.body.write_in.file_offset |= (1ULL << 63) - kSector; }},
    {ODX_REASON_LOCKED, [](auto&, auto& f) { f.range_locked = true; }},
    {ODX_REASON_END_OF_FILE, [](auto& c, auto&) { c.body.write_in.file_offset |= 1ULL << 40; }},
};

template <class Judge>
void check_all_pairs(const std::vector<Violation>& violations, const odx_offload& good,
                     const Judge& judge) {
  for (std::size_t first = 0; first < violations.size(); ++first) {
    for (std::size_t second = first; second < violations.size(); ++second) {
      odx_offload call = good;
      FileFacts file = regular();
      violations[second].apply(call, file);
      if (second != first) {
        violations[first].apply(call, file);
      }
      CAPTURE(first, second);
      CHECK(refusal(judge(call, file)).reason == violations[first].reason);
    }
  }
}

}  // namespace

TEST_CASE("READ order: of any two violations the earlier rule answers") {
  check_all_pairs(kReadViolations, read_call(0, kSector),
                  [](const auto& call, const auto& file) { return judge_read(call, file); });
}

TEST_CASE("WRITE order: of any two violations the earlier rule answers") {
  check_all_pairs(kWriteViolations, write_call(0, kSector),
                  [](const auto& call, const auto& file) { return judge_write(call, file); });
}

TEST_CASE("order: length 0 comes after the checks of shape and before those of the file") {
  auto bad_size = read_call(0, 0);
  bad_size.body.read_in.size = 0;
  CHECK(refusal(judge_read(bad_size, directory())) == kEinvalSize);
  auto bad_write = write_call(0, 0, 1);
  CHECK(refusal(judge_write(bad_write, regular())) == kEinvalFrom);
  CHECK(zero_length(judge_write(write_call(1ULL << 63, 0), regular())));
}

// ---- locks, replies, errno tables ----

TEST_CASE("lock range: the range asked for, cut at 2^63 - 1") {
  const auto range = [](std::uint64_t offset, std::uint64_t length) {
    return locked_range(read_call(offset, length), Control::kRead);
  };
  CHECK(range(512, 1024).first == 512);
  CHECK(range(512, 1024).last == 1535);
  CHECK(range(512, kHuge).last == kMaxFileBytes);
  CHECK(range(0, 1ULL << 63).last == kMaxFileBytes);
  CHECK(range(kMaxFileBytes, 1).last == kMaxFileBytes);
  CHECK(range(0, 0).empty());
  CHECK(range(1ULL << 63, 512).empty());
  CHECK(locked_range(write_call(1024, 512), Control::kWrite).first == 1024);
  CHECK(locked_range(write_call(1024, 512), Control::kWrite).last == 1535);
}

TEST_CASE("errno and NTSTATUS: the table of 2.4, both ways") {
  struct Row {
    int errno_value;
    std::uint32_t read;
    std::uint32_t write;
    int back;
  };
  const Row rows[] = {
      {ENOTTY, 0xC0000010, 0xC0000010, ENOTTY},
      {EOPNOTSUPP, 0xC000A2A3, 0xC000A2A4, EOPNOTSUPP},
      {EISDIR, 0xC000A2A3, 0xC000A2A4, EOPNOTSUPP},
      {EPERM, 0xC000A2A1, 0xC000A2A2, EPERM},
      {EINVAL, 0xC000000D, 0xC000000D, EINVAL},
      {EBADF, 0xC0000022, 0xC0000022, EACCES},
      {EACCES, 0xC0000022, 0xC0000022, EACCES},
      {ENXIO, 0xC0000011, 0xC0000011, ENXIO},
      {EFBIG, 0xC000000D, 0xC000000D, EINVAL},
      {EAGAIN, 0xC0000054, 0xC0000054, EAGAIN},
      {EKEYEXPIRED, 0xC0000465, 0xC0000465, EKEYREJECTED},
      {EKEYREJECTED, 0xC0000465, 0xC0000465, EKEYREJECTED},
      {ESTALE, 0xC0000465, 0xC0000465, EKEYREJECTED},
      {EXDEV, 0xC0000464, 0xC0000464, EXDEV},
      {ENOSPC, 0xC000007F, 0xC000007F, ENOSPC},
      {EDQUOT, 0xC000007F, 0xC000007F, ENOSPC},
      {EROFS, 0xC00000A2, 0xC00000A2, EROFS},
      {ENOMEM, 0xC000009A, 0xC000009A, ENOBUFS},
      {ENOBUFS, 0xC000009A, 0xC000009A, ENOBUFS},
      {EIO, 0xC0000185, 0xC0000185, EIO},
      {ENODEV, 0xC000026E, 0xC000026E, ENODEV},
      {ENOTCONN, 0xC000026E, 0xC000026E, ENODEV},
      {0, 0, 0, 0},
  };
  for (const Row& row : rows) {
    CAPTURE(row.errno_value);
    CHECK(status_of_errno(row.errno_value, Control::kRead) == row.read);
    CHECK(status_of_errno(row.errno_value, Control::kWrite) == row.write);
    CHECK(errno_of_status(row.write) == row.back);
    if (row.errno_value != 0) {
      const Verdict verdict = verdict_for_errno(row.errno_value, Control::kRead);
      CHECK(verdict.errno_value == row.errno_value);
      CHECK(verdict.status == row.read);
      CHECK(verdict.reason != ODX_REASON_NONE);
    }
  }
}

TEST_CASE("every reason has a text, and a failing one an errno and a status") {
  for (std::uint32_t reason = 0; reason <= ODX_REASON_DISABLED; ++reason) {
    CAPTURE(reason);
    CHECK(std::string(reason_text(reason)) != "unknown reason");
    for (const Control control : {Control::kRead, Control::kWrite}) {
      const Verdict verdict = verdict_for(static_cast<odx_reason>(reason), control);
      CHECK(verdict.reason == static_cast<odx_reason>(reason));
      CHECK((verdict.errno_value == 0) == (verdict.status == ODX_STATUS_SUCCESS));
      CHECK(std::string(status_name(verdict.status)).rfind("STATUS_", 0) == 0);
    }
  }
  CHECK(std::string(reason_text(ODX_REASON_DISABLED + 1)) == "unknown reason");
  CHECK(std::string(reason_text(UINT32_MAX)) == "unknown reason");
  CHECK(std::string(status_name(0x12345678)) == "unknown status");
}

// ---- properties ----

namespace {

// 100 runs are few for so many branches. RC_PARAMS given from outside stands.
void many_runs() { ::setenv("RC_PARAMS", "max_success=20000", 0); }

FileFacts random_file() {
  FileFacts file = regular();
  file.sector = *rc::gen::element(512u, 1024u, 4096u);
  file.extend_allowed = *rc::gen::arbitrary<bool>();
  file.is_regular = *rc::gen::inRange(0, 20) != 0;
  file.eof = *rc::gen::weightedOneOf<std::uint64_t>(
      {{1, rc::gen::just<std::uint64_t>(0)},
       {6, rc::gen::inRange<std::uint64_t>(0, 64 * 1024)},
       {2, rc::gen::inRange<std::uint64_t>(0, kMaxFileBytes)},
       {1, rc::gen::inRange<std::uint64_t>(kMaxFileBytes - 64 * 1024, kMaxFileBytes + 1)}});
  return file;
}

// Mostly whole sectors around the places where rules change, sometimes anything.
std::uint64_t random_number(const FileFacts& file) {
  if (*rc::gen::inRange(0, 30) == 0) {
    return *rc::gen::arbitrary<std::uint64_t>();
  }
  const std::uint64_t base =
      *rc::gen::weightedElement<std::uint64_t>({{16, 0},
                                                {8, odx::round_down(file.eof, file.sector)},
                                                {1, file.eof},
                                                {1, 1ULL << 62},
                                                {1, 1ULL << 63}});
  const auto sectors =
      base == 0 ? *rc::gen::inRange<std::int64_t>(-1, 48) : *rc::gen::inRange<std::int64_t>(-8, 4);
  return base + static_cast<std::uint64_t>(sectors) * file.sector;
}

odx_offload random_call(const FileFacts& file, bool write) {
  const std::uint64_t offset = random_number(file);
  const std::uint64_t length =
      *rc::gen::inRange(0, 8) == 0 ? file.eof - offset : random_number(file);
  auto call = write ? write_call(offset, length, random_number(file)) : read_call(offset, length);
  if (*rc::gen::inRange(0, 20) == 0) {
    const auto raw = *rc::gen::container<std::vector<std::uint8_t>>(
        sizeof(odx_offload), rc::gen::arbitrary<std::uint8_t>());
    std::memcpy(&call, raw.data(), raw.size());
  }
  return call;
}

}  // namespace

TEST_CASE("property: a READ plan stays inside the file and the request") {
  many_runs();
  CHECK(rc::check([] {
    const FileFacts file = random_file();
    const odx_offload call = random_call(file, false);
    const ReadJudgement judgement = judge_read(call, file);
    RC_CLASSIFY(std::holds_alternative<ReadPlan>(judgement), "planned");
    if (const auto* verdict = std::get_if<Verdict>(&judgement)) {
      RC_ASSERT(verdict->errno_value != 0);
      RC_ASSERT(verdict->status != ODX_STATUS_SUCCESS);
      RC_ASSERT(verdict->reason != ODX_REASON_NONE);
    } else if (const auto* plan = std::get_if<ReadPlan>(&judgement)) {
      RC_ASSERT(plan->offset == call.body.read_in.file_offset);
      RC_ASSERT(plan->data_length > 0);
      RC_ASSERT(plan->data_length <= kMaxFileBytes);
      RC_ASSERT(plan->offset <= file.eof);
      RC_ASSERT(plan->data_length <= file.eof - plan->offset);
      RC_ASSERT(plan->data_length <= plan->length);
      RC_ASSERT(plan->length - plan->data_length < file.sector);
      RC_ASSERT(plan->length % file.sector == 0);
      RC_ASSERT(plan->transfer_length <= call.body.read_in.copy_length);
      RC_ASSERT(plan->transfer_length <= plan->length);
      RC_ASSERT(plan->transfer_length % file.sector == 0 ||
                plan->offset + plan->transfer_length == file.eof);
    }
  }));
}

TEST_CASE("property: a WRITE plan stays inside the file, the token and the request") {
  many_runs();
  CHECK(rc::check([] {
    const FileFacts file = random_file();
    const odx_offload call = random_call(file, true);
    const WriteJudgement judgement = judge_write(call, file);
    const auto* plan = std::get_if<WritePlan>(&judgement);
    RC_CLASSIFY(plan != nullptr, "planned");
    if (plan == nullptr) {
      return;
    }
    RC_ASSERT(plan->limit > 0);
    RC_ASSERT(plan->limit <= plan->copy_length);
    RC_ASSERT(plan->copy_length <= kMaxFileBytes);

    const std::uint64_t data = std::clamp<std::uint64_t>(random_number(file), 1, kMaxFileBytes);
    const TokenSpan span{odx::round_up(data, file.sector), data};
    const bool zero = *rc::gen::arbitrary<bool>();
    const TokenContent token = zero ? TokenContent{ZeroToken{}} : TokenContent{span};
    const TransferJudgement transfer = judge_transfer(*plan, file, token);
    const auto* move = std::get_if<TransferPlan>(&transfer);
    RC_CLASSIFY(move != nullptr, "moved");
    if (move == nullptr) {
      RC_ASSERT(std::get<Verdict>(transfer).reason == ODX_REASON_TRANSFER_OFFSET_RANGE);
      return;
    }
    const std::uint64_t touched = move->splice_length + move->zero_length;
    RC_ASSERT(move->length_written > 0);
    RC_ASSERT(move->length_written <= plan->limit);
    RC_ASSERT(move->length_written % file.sector == 0 ||
              plan->offset + move->length_written == file.eof);
    RC_ASSERT(touched > 0);
    RC_ASSERT(touched <= move->length_written);
    RC_ASSERT(move->destination_offset + touched <= move->new_eof);
    RC_ASSERT(move->new_eof <= kMaxFileBytes);
    RC_ASSERT(move->new_eof >= file.eof);
    if (!file.extend_allowed) {
      RC_ASSERT(move->new_eof == file.eof);
    }
    if (!zero) {
      RC_ASSERT(move->splice_length == 0 ||
                move->source_offset + move->splice_length <= span.data_length);
    } else {
      RC_ASSERT(move->splice_length == 0);
    }
  }));
}
