// FSCTL_OFFLOAD_READ: table 2.1 of odx-rules.md.
//
// The call is judged twice. First against a snapshot, without the mutation lock: that answers
// everything that makes no record (refusals, the zero length, the zero token), also on a read-only
// store. Only a range with something in it goes on to a Mutation, where the same judgement is made
// again on the newest state: the check and the slice are then one moment.
#include <sodium.h>

#include <algorithm>
#include <utility>
#include <variant>

#include "proto/token_codec.hpp"
#include "store/mutation.hpp"
#include "store/token/tokens.hpp"

namespace odx {

// What a READ that is in order needs a token for.
struct Tokens::ReadJob {
  proto::ReadPlan plan;
  std::uint64_t data_bytes = 0;  // of the range, not holes
  bool zeros_beyond = false;
};

namespace {

constexpr proto::Control kRead = proto::Control::kRead;

TokenRecord new_record(const proto::ReadPlan& plan, std::uint32_t uid, std::int64_t now_ns,
                       const TokenOptions& options) {
  TokenRecord record;
  randombytes_buf(record.id.data(), record.id.size());
  randombytes_buf(record.secret.data(), record.secret.size());
  record.uid = uid;
  record.ttl_ms = proto::effective_ttl_ms(plan.ttl_ms, options.ttl_default_ms, options.ttl_max_ms);
  record.created_ns = now_ns;
  record.last_used_ns = now_ns;
  record.due_ns = later(now_ns, static_cast<std::int64_t>(record.ttl_ms) * kNsPerMs);
  record.span = plan.length;
  record.data_length = plan.data_length;
  return record;
}

}  // namespace

int Tokens::offload_read(InodeNo ino, const OffloadCaller& caller, odx_offload& call) {
  return concluded(read(ino, caller, call), kRead, call);
}

Tokens::Answer Tokens::read(InodeNo ino, const OffloadCaller& caller, odx_offload& call) {
  ReadJob job;
  {
    const Core::FileView view = ODX_TRY(core_.view(ino));
    const auto answer = ODX_TRY(examine_read(
        *view.inode, caller, call, TreeReader(core_.nodes, *core_.meta, view.snapshot.seq()), job));
    if (answer) {
      return *answer;
    }
  }
  if (core_.read_only) {  // every rule is satisfied, but the token could not be remembered
    return proto::verdict_for(ODX_REASON_READ_ONLY, kRead);
  }
  // Tokens that have expired but have not been cleared away yet must not count. A user who has
  // reached his limit is refused without the mutation lock.
  for (bool anything_cleared = true;;) {
    if (usage_.has_room(caller.uid, job.data_bytes, options_)) {
      const proto::Verdict verdict = ODX_TRY(grant(ino, caller, call));
      if (verdict.reason != ODX_REASON_TOKEN_LIMIT) {
        return verdict;
      }
    }
    if (!anything_cleared) {
      return proto::verdict_for(ODX_REASON_TOKEN_LIMIT, kRead);
    }
    anything_cleared = ODX_TRY(expire_some()) > 0;
  }
}

// The transaction that makes the token.
Tokens::Answer Tokens::grant(InodeNo ino, const OffloadCaller& caller, odx_offload& call) {
  Mutation mutation = ODX_TRY(Mutation::begin(core_));
  const Inode inode = ODX_TRY(mutation.inode(ino));
  ReadJob job;
  const auto answer = ODX_TRY(examine_read(
      inode, caller, call, TreeReader(core_.nodes, mutation.kv(), NodeCache::kNewest), job));
  if (answer) {
    return *answer;
  }
  const proto::ReadPlan& plan = job.plan;

  TokenUsage::Admission admission = usage_.admit(caller.uid, job.data_bytes, options_);
  if (!admission) {
    return proto::verdict_for(ODX_REASON_TOKEN_LIMIT, kRead);
  }
  TokenRecord record = new_record(plan, caller.uid, now_ns(), options_);
  record.tree =
      ODX_TRY(mutation.trees().slice(inode.tree, FileOffset(plan.offset), plan.data_length));
  mutation.kv().put(record.key(), record.encode());
  mutation.kv().put(record.expiry_key(), {});
  // Listed before it is there, as listing takes memory and a committed token may not be forgotten.
  struct Listing {
    TokenIndex& index;
    const TokenRecord& record;
    bool kept = false;
    ~Listing() {
      if (!kept) {
        index.remove(record.uid, record.id);
      }
    }
  } listing{index_, record};
  index_.add(record.uid, record.id);
  const TxnSeq seq = ODX_TRY(mutation.commit([&] {
    admission.keep();
    listing.kept = true;
  }));
  core_.counters.tokens_created.fetch_add(1, std::memory_order_relaxed);
  if (record.due_ns < next_due_ns_.load()) {
    announce_due(record.due_ns);
    core_.background_bell.ring();
  }
  if (plan.sync) {
    if (const Result<void> durable = core_.meta->wait_durable(seq); !durable) {
      return fail(EIO, durable.error().message());
    }
  }
  proto::fill_read_success(call, plan,
                           proto::encode_token({core_.super.uuid, record.id, record.secret}),
                           job.zeros_beyond);
  return proto::Verdict{};
}

Tokens::Step Tokens::examine_read(const Inode& inode, const OffloadCaller& caller,
                                  odx_offload& call, TreeReader reader, ReadJob& job) const {
  const proto::ReadJudgement judgement = proto::judge_read(call, facts(inode, caller));
  if (const auto* refusal = std::get_if<proto::Verdict>(&judgement)) {
    return *refusal;
  }
  if (std::holds_alternative<proto::ReadZeroLength>(judgement)) {
    proto::fill_read_zero_length(call);
    return proto::Verdict{};
  }
  job.plan = std::get<proto::ReadPlan>(judgement);
  const FileOffset begin(job.plan.offset);
  const FileOffset end = begin + job.plan.data_length;
  job.data_bytes = ODX_TRY(reader.data_bytes(inode.tree, begin, job.plan.data_length));
  job.zeros_beyond =
      end.value() == inode.size() || !ODX_TRY(reader.seek_data(inode.tree, end)).has_value();
  if (job.data_bytes > 0 || job.plan.reaches_unaligned_eof) {
    return std::nullopt;
  }
  proto::fill_read_success(call, job.plan, proto::zero_token(), job.zeros_beyond);
  return proto::Verdict{};
}

}  // namespace odx
