// FSCTL_OFFLOAD_WRITE: table 2.2 of odx-rules.md.
//
// As OFFLOAD_READ, the call is judged twice: against a snapshot, so that what is refused never
// takes the mutation lock, and again inside the Mutation, where nothing can change any more. A
// refused call changes nothing because its Mutation was never begun, or is abandoned.
#include <algorithm>
#include <string>
#include <utility>
#include <variant>

#include "proto/token_codec.hpp"
#include "store/meta/keys.hpp"
#include "store/mutation.hpp"
#include "store/token/tokens.hpp"

namespace odx {

// What a WRITE that is in order does.
struct Tokens::WriteJob {
  proto::WritePlan plan;
  proto::TransferPlan transfer;
  std::optional<TokenRecord> record;  // none: the zero token
};

namespace {

constexpr proto::Control kWrite = proto::Control::kWrite;

proto::Verdict refuse(odx_reason reason) { return proto::verdict_for(reason, kWrite); }

// What write(2) takes away from a file: set-id bits, unless it is root who writes, and file
// capabilities.
Result<void> drop_privileges(Inode& inode, KvOverlay& kv, std::uint32_t caller_uid) {
  if (caller_uid != 0) {
    inode.mode &= ~static_cast<std::uint32_t>(S_ISUID);
    if ((inode.mode & S_IXGRP) != 0) {
      inode.mode &= ~static_cast<std::uint32_t>(S_ISGID);
    }
  }
  if (inode.xattr_count > 0) {
    std::string key = keys::xattr(inode.ino, "security.capability");
    if (ODX_TRY(kv.get(key))) {
      kv.erase(std::move(key));
      --inode.xattr_count;
    }
  }
  return {};
}

}  // namespace

int Tokens::offload_write(InodeNo ino, const OffloadCaller& caller, odx_offload& call) {
  return concluded(write(ino, caller, call), kWrite, call);
}

Tokens::Answer Tokens::write(InodeNo ino, const OffloadCaller& caller, odx_offload& call) {
  {
    const InodePtr inode = ODX_TRY(core_.inode(ino));
    WriteJob job;
    if (const auto answer = ODX_TRY(examine_write(*inode, caller, call, *core_.meta, job))) {
      return *answer;
    }
  }
  Mutation mutation = ODX_TRY(Mutation::begin(core_));
  Inode inode = ODX_TRY(mutation.inode(ino));
  WriteJob job;
  if (const auto answer = ODX_TRY(examine_write(inode, caller, call, mutation.kv(), job))) {
    return *answer;
  }
  const proto::TransferPlan& transfer = job.transfer;

  TreeEditor& trees = mutation.trees();
  Tree middle = TreeEditor::of_hole(transfer.zero_length);
  std::uint64_t shared = 0;
  if (job.record && transfer.splice_length > 0) {
    Tree data = ODX_TRY(
        trees.slice(job.record->tree, FileOffset(transfer.source_offset), transfer.splice_length));
    shared = data.data_bytes();
    middle = ODX_TRY(trees.concat(std::move(data), std::move(middle)));
  }
  const FileOffset at(transfer.destination_offset);
  const std::uint64_t replaced = std::min(middle.bytes(), inode.size() - at.value());
  inode.tree = ODX_TRY(trees.splice(std::move(inode.tree), at, replaced, std::move(middle)));
  if (inode.size() != transfer.new_eof) {
    return corrupt("a file's extents have another length than recorded");
  }

  inode.mtime_ns = inode.ctime_ns = mutation.now_ns();
  ++inode.data_version;
  ODX_TRY(drop_privileges(inode, mutation.kv(), caller.uid));
  mutation.put(std::move(inode));
  if (job.record) {
    refresh(mutation, std::move(*job.record));
  }
  ODX_TRY(mutation.commit());
  core_.counters.tokens_redeemed.fetch_add(1, std::memory_order_relaxed);
  core_.counters.offload_bytes.fetch_add(transfer.length_written, std::memory_order_relaxed);
  core_.counters.offload_bytes_shared.fetch_add(shared, std::memory_order_relaxed);
  proto::fill_write_success(call, job.plan, transfer.length_written, shared);
  return proto::Verdict{};
}

Tokens::Step Tokens::examine_write(const Inode& inode, const OffloadCaller& caller,
                                   odx_offload& call, const KvReader& kv, WriteJob& job) {
  const proto::FileFacts file = facts(inode, caller);
  const proto::WriteJudgement judgement = proto::judge_write(call, file);
  if (const auto* refusal = std::get_if<proto::Verdict>(&judgement)) {
    return *refusal;
  }
  if (std::holds_alternative<proto::WriteZeroLength>(judgement)) {
    proto::fill_write_zero_length(call);
    return proto::Verdict{};
  }
  job.plan = std::get<proto::WritePlan>(judgement);

  const odx_token& token = call.body.write_in.token;
  proto::TokenContent content = proto::ZeroToken{};
  switch (proto::classify(token)) {
    case proto::TokenKind::kZero:
      break;
    case proto::TokenKind::kReservedType:  // 2.2#23
      return refuse(ODX_REASON_TOKEN_RESERVED_TYPE);
    case proto::TokenKind::kMalformed:  // 2.2#19
      return refuse(ODX_REASON_TOKEN_MALFORMED);
    case proto::TokenKind::kOurs: {
      const std::optional<proto::TokenFields> fields = proto::decode(token);
      if (fields->store != core_.super.uuid) {  // 2.2#22
        return refuse(ODX_REASON_TOKEN_FOREIGN);
      }
      job.record = ODX_TRY(find(kv, fields->id));
      if (!job.record ||
          !proto::token_matches(token, {core_.super.uuid, fields->id, job.record->secret})) {
        return refuse(ODX_REASON_TOKEN_UNKNOWN);  // 2.2#19
      }
      if (!job.record->alive(now_ns())) {  // 2.2#20
        return refuse(ODX_REASON_TOKEN_EXPIRED);
      }
      if (options_.bind_to_user && job.record->uid != caller.uid) {
        return refuse(ODX_REASON_TOKEN_OTHER_USER);
      }
      content = proto::TokenSpan{job.record->span, job.record->data_length};
      break;
    }
  }

  const proto::TransferJudgement transfer = proto::judge_transfer(job.plan, file, content);
  if (const auto* refusal = std::get_if<proto::Verdict>(&transfer)) {  // 2.2#24
    return *refusal;
  }
  job.transfer = std::get<proto::TransferPlan>(transfer);
  return std::nullopt;
}

// Restarts the inactivity timer. Not for less than a second's gain (an eighth of a shorter timer):
// a token that is redeemed in many pieces would otherwise be journalled with each of them.
void Tokens::refresh(Mutation& mutation, TokenRecord record) {
  const std::int64_t now = now_ns();
  const std::int64_t ttl = static_cast<std::int64_t>(record.ttl_ms) * kNsPerMs;
  const std::int64_t due = later(now, ttl);
  if (due - record.due_ns < std::min(kNsPerSecond, ttl / 8)) {
    return;
  }
  mutation.kv().erase(record.expiry_key());
  record.last_used_ns = std::max(record.last_used_ns, now);
  record.due_ns = due;
  mutation.kv().put(record.key(), record.encode());
  mutation.kv().put(record.expiry_key(), {});
}

}  // namespace odx
