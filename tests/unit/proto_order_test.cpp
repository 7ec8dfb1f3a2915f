// The rule engine as a whole: the order of its checks, the tables of errnos and statuses, and what
// holds for every call.
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
#include "proto/rules.hpp"
#include "rules_support.hpp"

using namespace odx::proto;
using namespace odx::testing;
using odx::kMaxFileBytes;

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

TEST_CASE("READ order: of any two violations the earlier rule answers",
          "[2.1#0c][2.1#0d][2.1#2][2.1#3][2.1#3a][2.1#4][2.1#5][2.1#6][2.1#7][2.1#9][2.1#14]"
          "[2.1#15][2.1#16]") {
  check_all_pairs(kReadViolations, read_call(0, kSector),
                  [](const auto& call, const auto& file) { return judge_read(call, file); });
}

TEST_CASE("WRITE order: of any two violations the earlier rule answers",
          "[2.2#0c][2.2#0d][2.2#1][2.2#3][2.2#4][2.2#4a][2.2#5][2.2#6][2.2#7][2.2#8][2.2#9]"
          "[2.2#11][2.2#13][2.2#14][2.2#15][2.2#17][4.4W#5]") {
  check_all_pairs(kWriteViolations, write_call(0, kSector),
                  [](const auto& call, const auto& file) { return judge_write(call, file); });
}

TEST_CASE("order: length 0 comes after the checks of shape and before those of the file",
          "[2.1#8][2.2#10]") {
  auto bad_size = read_call(0, 0);
  bad_size.body.read_in.size = 0;
  CHECK(refusal(judge_read(bad_size, directory())) == kEinvalSize);
  auto bad_write = write_call(0, 0, 1);
  CHECK(refusal(judge_write(bad_write, regular())) == kEinvalFrom);
  CHECK(zero_length(judge_write(write_call(1ULL << 63, 0), regular())));
}

// ---- locks, replies, errno tables ----

TEST_CASE("lock range: the range asked for, cut at 2^63 - 1", "[2.1#15][2.2#15][2.3#K]") {
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

TEST_CASE("errno and NTSTATUS: the table of 2.4, both ways",
          "[1#8][2.1#0a][2.1#0b][2.1#22][2.1#23][2.1#24][2.2#0a][2.2#0b][2.2#28][2.2#29]"
          "[2.2#30]") {
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

TEST_CASE("every reason has a text, and a failing one an errno and a status", "[1#8][2.5#10]") {
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

TEST_CASE("property: a READ plan stays inside the file and the request", "[2.1#18][2.1#21]") {
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

TEST_CASE("property: a WRITE plan stays inside the file, the token and the request",
          "[2.2#24][2.2#26][2.2#27][2.5#8]") {
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
