// What the tests of the rule engine share: calls, files and expected verdicts.
#pragma once

#include <catch2/catch.hpp>
#include <cerrno>
#include <cstdint>
#include <variant>

#include "base/types.hpp"
#include "proto/rules.hpp"
#include "proto/token_codec.hpp"

namespace odx::testing {

inline constexpr std::uint64_t kSector = 512;
inline constexpr std::uint64_t kEof = 16 * kSector;
inline constexpr std::uint64_t kHuge =
    UINT64_MAX - kSector + 1;  // the largest whole number of sectors

inline proto::FileFacts regular(std::uint64_t eof = kEof) {
  proto::FileFacts file;
  file.is_regular = true;
  file.readable = true;
  file.writable = true;
  file.sector = kSector;
  file.eof = eof;
  return file;
}

inline proto::FileFacts directory() {
  proto::FileFacts file = regular(0);
  file.is_regular = false;
  file.is_directory = true;
  return file;
}

inline proto::FileFacts extending(std::uint64_t eof) {
  proto::FileFacts file = regular(eof);
  file.extend_allowed = true;
  return file;
}

inline odx_offload read_call(std::uint64_t offset, std::uint64_t length) {
  odx_offload call{};
  call.body.read_in.size = sizeof(odx_read_input);
  call.body.read_in.file_offset = offset;
  call.body.read_in.copy_length = length;
  return call;
}

inline odx_offload write_call(std::uint64_t offset, std::uint64_t length, std::uint64_t from = 0) {
  odx_offload call{};
  call.body.write_in.size = sizeof(odx_write_input);
  call.body.write_in.file_offset = offset;
  call.body.write_in.copy_length = length;
  call.body.write_in.transfer_offset = from;
  call.body.write_in.token = proto::zero_token();
  return call;
}

inline proto::Verdict refusal(const proto::ReadJudgement& judgement) {
  REQUIRE(std::holds_alternative<proto::Verdict>(judgement));
  return std::get<proto::Verdict>(judgement);
}
inline proto::Verdict refusal(const proto::WriteJudgement& judgement) {
  REQUIRE(std::holds_alternative<proto::Verdict>(judgement));
  return std::get<proto::Verdict>(judgement);
}
inline proto::Verdict refusal(const proto::TransferJudgement& judgement) {
  REQUIRE(std::holds_alternative<proto::Verdict>(judgement));
  return std::get<proto::Verdict>(judgement);
}

inline proto::ReadPlan read_plan(const odx_offload& call, const proto::FileFacts& file) {
  const auto judgement = proto::judge_read(call, file);
  REQUIRE(std::holds_alternative<proto::ReadPlan>(judgement));
  return std::get<proto::ReadPlan>(judgement);
}
inline proto::WritePlan write_plan(const odx_offload& call, const proto::FileFacts& file) {
  const auto judgement = proto::judge_write(call, file);
  REQUIRE(std::holds_alternative<proto::WritePlan>(judgement));
  return std::get<proto::WritePlan>(judgement);
}
inline proto::TransferPlan transfer_plan(const odx_offload& call, const proto::FileFacts& file,
                                         const proto::TokenContent& token) {
  const auto judgement = proto::judge_transfer(write_plan(call, file), file, token);
  REQUIRE(std::holds_alternative<proto::TransferPlan>(judgement));
  return std::get<proto::TransferPlan>(judgement);
}

inline bool zero_length(const proto::ReadJudgement& judgement) {
  return std::holds_alternative<proto::ReadZeroLength>(judgement);
}
inline bool zero_length(const proto::WriteJudgement& judgement) {
  return std::holds_alternative<proto::WriteZeroLength>(judgement);
}

// A token over `data` bytes of which the last sector may be partly beyond its source's EOF.
inline proto::TokenSpan span_of(std::uint64_t data) { return {round_up(data, kSector), data}; }

inline const proto::Verdict kEinvalSize{EINVAL, ODX_STATUS_INVALID_PARAMETER,
                                        ODX_REASON_STRUCTURE_SIZE};
inline const proto::Verdict kEinvalWrap{EINVAL, ODX_STATUS_INVALID_PARAMETER,
                                        ODX_REASON_RANGE_WRAPS};
inline const proto::Verdict kEinvalNegative{EINVAL, ODX_STATUS_INVALID_PARAMETER,
                                            ODX_REASON_OFFSET_NEGATIVE};
inline const proto::Verdict kEinvalOffset{EINVAL, ODX_STATUS_INVALID_PARAMETER,
                                          ODX_REASON_FILE_OFFSET_ALIGNMENT};
inline const proto::Verdict kEinvalLength{EINVAL, ODX_STATUS_INVALID_PARAMETER,
                                          ODX_REASON_COPY_LENGTH_ALIGNMENT};
inline const proto::Verdict kEinvalFrom{EINVAL, ODX_STATUS_INVALID_PARAMETER,
                                        ODX_REASON_TRANSFER_OFFSET_ALIGNMENT};
inline const proto::Verdict kEinvalFromRange{EINVAL, ODX_STATUS_INVALID_PARAMETER,
                                             ODX_REASON_TRANSFER_OFFSET_RANGE};
inline const proto::Verdict kEinvalOption{EINVAL, ODX_STATUS_INVALID_PARAMETER,
                                          ODX_REASON_UNKNOWN_OPTION};
inline const proto::Verdict kInputSmall{EINVAL, ODX_STATUS_BUFFER_TOO_SMALL,
                                        ODX_REASON_INPUT_TOO_SMALL};
inline const proto::Verdict kOutputSmall{EINVAL, ODX_STATUS_BUFFER_TOO_SMALL,
                                         ODX_REASON_OUTPUT_TOO_SMALL};
inline const proto::Verdict kAccess{EBADF, ODX_STATUS_ACCESS_DENIED, ODX_REASON_ACCESS_MODE};
inline const proto::Verdict kLocked{EAGAIN, ODX_STATUS_FILE_LOCK_CONFLICT, ODX_REASON_LOCKED};
inline const proto::Verdict kEndOfFile{ENXIO, ODX_STATUS_END_OF_FILE, ODX_REASON_END_OF_FILE};

}  // namespace odx::testing
