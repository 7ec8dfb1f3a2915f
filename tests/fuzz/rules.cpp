// The pure rules of the controls on any 560 bytes, any file and any token: whatever a plan names
// lies inside what it may name.
#include <cstring>
#include <variant>

#include "base/types.hpp"
#include "input.hpp"
#include "proto/rules.hpp"
#include "proto/token_codec.hpp"

namespace odx::fuzz {

namespace {

proto::FileFacts any_file(Input& in) {
  const std::uint8_t bits = in.byte();
  proto::FileFacts file;
  file.is_regular = (bits & 1U) == 0;
  file.is_directory = (bits & 3U) == 3;
  file.readable = (bits & 4U) == 0;
  file.writable = (bits & 8U) == 0;
  file.read_only_fs = (bits & 16U) != 0;
  file.disabled = (bits & 32U) != 0;
  file.range_locked = (bits & 64U) != 0;
  file.extend_allowed = (bits & 128U) != 0;
  file.sector = 512U << in.below(4);
  file.eof = in.number() & kMaxFileBytes;
  return file;
}

// Sound but for what the input puts into it; or the input's bytes.
odx_offload any_call(Input& in, bool read) {
  odx_offload call{};
  const std::uint8_t bits = in.byte();
  if ((bits & 1U) != 0) {
    const std::string_view bytes = in.take(sizeof call);
    std::memcpy(&call, bytes.data(), bytes.size());
    return call;
  }
  const std::uint64_t offset = in.number();
  const std::uint64_t length = in.number();
  if (read) {
    call.body.read_in.size = sizeof(odx_read_input);
    call.body.read_in.file_offset = offset;
    call.body.read_in.copy_length = length;
    call.body.read_in.token_time_to_live = in.raw<std::uint32_t>();
  } else {
    call.body.write_in.size = sizeof(odx_write_input);
    call.body.write_in.file_offset = offset;
    call.body.write_in.copy_length = length;
    call.body.write_in.transfer_offset = in.number();
    call.body.write_in.token = proto::zero_token();
  }
  if ((bits & 2U) != 0) {
    call.a.input_length = static_cast<std::uint32_t>(in.number());
  }
  if ((bits & 4U) != 0) {
    call.b.output_room = static_cast<std::uint32_t>(in.number());
  }
  if ((bits & 8U) != 0) {
    call.c.options = in.number();
  }
  if ((bits & 16U) != 0) {
    call.body.read_in.size = in.raw<std::uint32_t>();
  }
  return call;
}

void expect_refusal(const proto::Verdict& verdict, odx_offload call) {
  FUZZ_EXPECT(verdict.errno_value > 0 && verdict.status != ODX_STATUS_SUCCESS);
  FUZZ_EXPECT(verdict.reason != ODX_REASON_NONE);
  proto::fill_failure(call, verdict);
  FUZZ_EXPECT(call.a.status == verdict.status && call.c.bytes_shared == 0);
}

void read(odx_offload call, const proto::FileFacts& file) {
  const proto::ReadJudgement judgement = proto::judge_read(call, file);
  if (const auto* verdict = std::get_if<proto::Verdict>(&judgement)) {
    expect_refusal(*verdict, call);
    return;
  }
  FUZZ_EXPECT(file.readable && !file.disabled);
  FUZZ_EXPECT((call.c.options & ~std::uint64_t{ODX_TOKEN_SYNC}) == 0);
  const auto* plan = std::get_if<proto::ReadPlan>(&judgement);
  if (plan == nullptr) {
    FUZZ_EXPECT(call.body.read_in.copy_length == 0);
    proto::fill_read_zero_length(call);
    FUZZ_EXPECT(call.body.read_out.transfer_length == 0);
    return;
  }
  FUZZ_EXPECT(file.is_regular && !file.range_locked);
  FUZZ_EXPECT(plan->offset < file.eof && plan->offset % file.sector == 0);
  FUZZ_EXPECT(plan->data_length > 0 && plan->data_length <= file.eof - plan->offset);
  FUZZ_EXPECT(plan->data_length <= plan->length && plan->length % file.sector == 0);
  FUZZ_EXPECT(plan->transfer_length <= plan->length && plan->transfer_length <= plan->copy_length);
  FUZZ_EXPECT(plan->transfer_length > 0 && plan->length - plan->data_length < file.sector);
  proto::fill_read_success(call, *plan, proto::zero_token(), true);
  FUZZ_EXPECT(call.a.status == ODX_STATUS_SUCCESS);
}

void write(odx_offload call, const proto::FileFacts& file, Input& in) {
  const proto::WriteJudgement judgement = proto::judge_write(call, file);
  if (const auto* verdict = std::get_if<proto::Verdict>(&judgement)) {
    expect_refusal(*verdict, call);
    return;
  }
  FUZZ_EXPECT(file.writable && !file.disabled && !file.read_only_fs && call.c.options == 0);
  const auto* plan = std::get_if<proto::WritePlan>(&judgement);
  if (plan == nullptr) {
    FUZZ_EXPECT(call.body.write_in.copy_length == 0);
    proto::fill_write_zero_length(call);
    return;
  }
  FUZZ_EXPECT(plan->limit > 0 && plan->limit <= plan->copy_length);
  proto::TokenContent content = proto::ZeroToken{};
  proto::TokenSpan span;
  if (in.below(3) != 0) {
    span.data_length = std::max<std::uint64_t>(in.number() & kMaxFileBytes, 1);
    span.length = span.data_length / file.sector * file.sector + file.sector;
    content = span;
  }
  const proto::TransferJudgement transfer = proto::judge_transfer(*plan, file, content);
  if (const auto* verdict = std::get_if<proto::Verdict>(&transfer)) {
    expect_refusal(*verdict, call);
    return;
  }
  const auto& done = std::get<proto::TransferPlan>(transfer);
  FUZZ_EXPECT(done.destination_offset == plan->offset);
  FUZZ_EXPECT(done.length_written > 0 && done.length_written <= plan->limit);
  FUZZ_EXPECT(done.splice_length <= done.length_written);
  FUZZ_EXPECT(done.zero_length <= done.length_written - done.splice_length);
  FUZZ_EXPECT(done.new_eof <= kMaxFileBytes && done.new_eof >= file.eof);
  FUZZ_EXPECT(file.extend_allowed || done.new_eof == file.eof);
  FUZZ_EXPECT(done.destination_offset <= done.new_eof);
  FUZZ_EXPECT(done.splice_length + done.zero_length <= done.new_eof - done.destination_offset);
  if (std::holds_alternative<proto::TokenSpan>(content)) {
    FUZZ_EXPECT(done.source_offset <= span.length);
    FUZZ_EXPECT(done.splice_length == 0 ||
                (done.source_offset < span.data_length &&
                 done.splice_length <= span.data_length - done.source_offset));
  } else {
    FUZZ_EXPECT(done.splice_length == 0);
  }
  proto::fill_write_success(call, *plan, done.length_written, 0);
  FUZZ_EXPECT(call.a.status == ODX_STATUS_SUCCESS);
}

void run(Input in) {
  const bool is_read = in.below(2) == 0;
  const proto::FileFacts file = any_file(in);
  const odx_offload call = any_call(in, is_read);
  const proto::LockRange range =
      proto::locked_range(call, is_read ? proto::Control::kRead : proto::Control::kWrite);
  FUZZ_EXPECT(range.empty() || range.last <= kMaxFileBytes);
  is_read ? read(call, file) : write(call, file, in);

  FUZZ_EXPECT(proto::effective_ttl_ms(in.raw<std::uint32_t>(), 60'000, 600'000) <= 600'000);
  const auto status = static_cast<std::uint32_t>(in.number());
  FUZZ_EXPECT(proto::reason_text(status) != nullptr && proto::reason_name(status) != nullptr &&
              proto::status_name(status) != nullptr);
  (void)proto::errno_of_status(status);
  (void)proto::status_of_errno(static_cast<int>(status), proto::Control::kWrite);
}

}  // namespace

}  // namespace odx::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  odx::fuzz::run({data, size});
  return 0;
}
