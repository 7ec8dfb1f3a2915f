// The rules of FSCTL_OFFLOAD_READ and FSCTL_OFFLOAD_WRITE as pure functions.
//
// A call is answered in steps; each either gives a Verdict (refused, nothing may change), the
// zero-length success, or a plan for the next step:
//
//   READ    judge_read -> the store makes a token of the plan's range -> fill_read_success
//   WRITE   judge_write -> the token is looked up (rules 19-23: classify, token_matches,
//           verdict_for) -> judge_transfer -> the store splices -> fill_write_success
//
// No I/O, no clock, no locks, no state. The facts must stay true until the plan is carried out: the
// caller holds the inode still, or judges again.
#pragma once

#include <cstdint>
#include <variant>

#include "odx/offload.h"
#include "proto/status.hpp"

namespace odx::proto {

// What is known of the file that a control was called on, at the moment of the call.
struct FileFacts {
  bool is_regular = false;
  bool is_directory = false;
  bool readable = false;        // the descriptor is open for reading
  bool writable = false;        // the descriptor is open for writing
  bool read_only_fs = false;    // nothing can be written to this mount
  bool disabled = false;        // offload is switched off by policy
  bool range_locked = false;    // a byte-range lock conflicts with locked_range() of this call
  bool extend_allowed = false;  // mount option odx_extend
  std::uint32_t sector = 512;   // bytes; a power of two from 512 to 4096
  std::uint64_t eof = 0;        // bytes, at most kMaxFileBytes
};

// Bytes [first, last] that a call's byte-range lock check is about: the range asked for (not what
// will be moved), cut at kMaxFileBytes. Empty (first > last) for a zero length or an offset beyond.
struct LockRange {
  std::uint64_t first = 0;
  std::uint64_t last = 0;
  [[nodiscard]] bool empty() const { return first > last; }
};
[[nodiscard]] LockRange locked_range(const odx_offload& call, Control control);

struct ReadZeroLength {};

// offset < eof; offset + data_length <= eof; 0 < data_length <= length; transfer_length <= length.
struct ReadPlan {
  std::uint64_t offset = 0;       // sector-aligned
  std::uint64_t copy_length = 0;  // bytes asked for
  // Bytes that the token stands for: whole sectors. Those from data_length on lie beyond EOF and
  // are zeros.
  std::uint64_t length = 0;
  std::uint64_t data_length = 0;
  // Bytes to report: `length`, but for an accepted unaligned tail, which is reported as asked.
  std::uint64_t transfer_length = 0;
  // The range holds part of the sector of an unaligned EOF, so the token must be an ordinary one
  // even if all of it is hole: a zero token could not keep the size.
  bool reaches_unaligned_eof = false;
  std::uint32_t ttl_ms = 0;  // as asked, see effective_ttl_ms
  bool sync = false;         // ODX_TOKEN_SYNC
};
using ReadJudgement = std::variant<Verdict, ReadZeroLength, ReadPlan>;
[[nodiscard]] ReadJudgement judge_read(const odx_offload& call, const FileFacts& file);

struct WriteZeroLength {};

// Everything before the token is looked at is in order. 0 < limit <= copy_length.
struct WritePlan {
  std::uint64_t offset = 0;       // in the destination, sector-aligned
  std::uint64_t copy_length = 0;  // bytes asked for
  std::uint64_t limit = 0;        // most bytes that may be reported, given the destination's EOF
  std::uint64_t transfer_offset = 0;  // in the token, sector-aligned
};
using WriteJudgement = std::variant<Verdict, WriteZeroLength, WritePlan>;
[[nodiscard]] WriteJudgement judge_write(const odx_offload& call, const FileFacts& file);

// What a valid token holds: ReadPlan's `length` and `data_length` of the READ that made it, or the
// endless zeros of the zero token.
struct TokenSpan {
  std::uint64_t length = 0;
  std::uint64_t data_length = 0;
};
struct ZeroToken {};
using TokenContent = std::variant<ZeroToken, TokenSpan>;

// destination_offset + splice_length + zero_length <= new_eof <= kMaxFileBytes;
// splice_length + zero_length <= length_written <= copy_length; length_written > 0.
struct TransferPlan {
  std::uint64_t destination_offset = 0;
  std::uint64_t source_offset = 0;   // in the token
  std::uint64_t splice_length = 0;   // bytes to take from the token
  std::uint64_t zero_length = 0;     // bytes to zero right after them
  std::uint64_t length_written = 0;  // bytes to report
  std::uint64_t new_eof = 0;         // of the destination; unchanged unless odx_extend
};
using TransferJudgement = std::variant<Verdict, TransferPlan>;
// `file` as given to judge_write for `plan`.
[[nodiscard]] TransferJudgement judge_transfer(const WritePlan& plan, const FileFacts& file,
                                               const TokenContent& token);

// A token's inactivity timer in ms for the TTL asked for: 0 means the default, and nothing lasts
// longer than the maximum.
[[nodiscard]] std::uint64_t effective_ttl_ms(std::uint32_t asked_ms, std::uint64_t default_ms,
                                             std::uint64_t max_ms);

// The replies. Each overwrites the whole structure; what the reply does not use is zero.
void fill_failure(odx_offload& call, const Verdict& verdict);
void fill_read_zero_length(odx_offload& call);
// `zeros_beyond`: nothing but holes follows the range up to EOF (true at EOF).
void fill_read_success(odx_offload& call, const ReadPlan& plan, const odx_token& token,
                       bool zeros_beyond);
void fill_write_zero_length(odx_offload& call);
// `length_written` may be less than planned, but not 0, if the store ran into trouble half-way.
// `bytes_shared`: destination bytes that now name shared extents.
void fill_write_success(odx_offload& call, const WritePlan& plan, std::uint64_t length_written,
                        std::uint64_t bytes_shared);

}  // namespace odx::proto
