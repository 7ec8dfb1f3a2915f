// The offload controls and the life of tokens. A token owns a rope of its own: point in time,
// independent of the file it came from.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "base/types.hpp"
#include "odx/offload.h"
#include "proto/rules.hpp"
#include "store/core.hpp"
#include "store/extent/tree_reader.hpp"
#include "store/meta/keys.hpp"
#include "store/token/token_index.hpp"
#include "store/token/token_record.hpp"
#include "store/token/token_time.hpp"
#include "store/token/token_usage.hpp"

namespace odx {

class Mutation;

struct TokenOptions {
  std::uint64_t ttl_default_ms = 60'000;
  std::uint64_t ttl_max_ms = 600'000;
  // Limits on live tokens, for root as for anybody: their number, and the sum of their data_bytes.
  static constexpr std::uint64_t kUnlimited = UINT64_MAX;
  std::uint64_t max_per_uid = 10'000;
  std::uint64_t max_total = 100'000;
  std::uint64_t max_pinned_bytes_per_uid = kUnlimited;
  std::uint64_t max_pinned_bytes = kUnlimited;
  bool bind_to_user = false;  // odx_token_scope=user
  bool extend = false;        // odx_extend
};

// Who calls, through what descriptor.
struct OffloadCaller {
  std::uint32_t uid = 0;
  bool readable = false;  // the descriptor is open for reading (writing)
  bool writable = false;
  bool disabled = false;      // offload is switched off by policy
  bool range_locked = false;  // a byte-range lock conflicts with proto::locked_range() of the call
};

// Thread-safe.
class Tokens {
 public:
  Tokens(Core& core, const TokenOptions& options);

  // Serves one control: judges the call, acts, and overwrites `call` with the reply, on failure
  // too. Answers with the errno for the caller (0 = success). The kernel's dirty pages of the file
  // must have been written back before.
  int offload_read(InodeNo ino, const OffloadCaller& caller, odx_offload& call);
  int offload_write(InodeNo ino, const OffloadCaller& caller, odx_offload& call);

  // In id order, behind `after`; only those of `uid` unless it is 0. What a page costs a user does
  // not depend on other users' tokens. Times are the wall clock's.
  Result<std::vector<odx_token_info>> list(const TokenId& after, std::size_t limit,
                                           std::uint32_t uid);
  // ENOENT (also if it has expired); EPERM unless `uid` owns it or is 0; then EROFS.
  Result<void> drop(const TokenId& id, std::uint32_t uid);

  // Ends every token whose time has come, in bounded transactions; answers with the nanoseconds
  // until the next one is due (nullopt: none). For the reclaimer's thread, which is woken when a
  // token is made that is due earlier than that.
  Result<std::optional<std::int64_t>> expire();

  // Counts and pinned bytes from the table; at open, once, before any other call.
  Result<void> load();
  [[nodiscard]] const TokenUsage& usage() const { return usage_; }
  [[nodiscard]] std::uint64_t live() const { return usage_.live(); }
  [[nodiscard]] std::uint64_t pinned_bytes() const { return usage_.pinned_bytes(); }
  [[nodiscard]] const TokenOptions& options() const { return options_; }

 private:
  // How a call ended: refused; or success, and then the reply is in the structure already.
  using Answer = Result<proto::Verdict>;
  // The same; or nothing yet: every rule is satisfied, and the job says what is to be done.
  using Step = Result<std::optional<proto::Verdict>>;
  struct ReadJob;
  struct WriteJob;

  Answer read(InodeNo ino, const OffloadCaller& caller, odx_offload& call);
  Answer grant(InodeNo ino, const OffloadCaller& caller, odx_offload& call);
  Step examine_read(const Inode& inode, const OffloadCaller& caller, odx_offload& call,
                    TreeReader reader, ReadJob& job) const;

  Answer write(InodeNo ino, const OffloadCaller& caller, odx_offload& call);
  Step examine_write(const Inode& inode, const OffloadCaller& caller, odx_offload& call,
                     const KvReader& kv, WriteJob& job);
  void refresh(Mutation& mutation, TokenRecord record);

  // Counts and fills in a refusal; answers with its errno.
  int concluded(const Answer& answer, proto::Control control, odx_offload& call);
  [[nodiscard]] std::int64_t now_ns() { return time_.now_ns(*core_.clock); }
  [[nodiscard]] proto::FileFacts facts(const Inode& inode, const OffloadCaller& caller) const;
  // The record, live or not; nullopt if there is none.
  static Result<std::optional<TokenRecord>> find(const KvReader& kv, const TokenId& id);
  // The same for drop(): a live token that `uid` may drop.
  Result<TokenRecord> droppable(const KvReader& kv, const TokenId& id, std::uint32_t uid);
  [[nodiscard]] odx_token_info describe(const TokenRecord& record) const;
  Result<std::vector<odx_token_info>> list_all(const TokenId& after, std::size_t limit);
  void announce_due(std::int64_t due_ns);
  Result<std::size_t> expire_some();
  Result<std::size_t> expire_some(std::size_t most, bool& spoiled);
  [[nodiscard]] std::string first_due_key() const;
  void set_first_due_key(std::string key);
  [[nodiscard]] bool is_damaged(const TokenId& id) const;

  Core& core_;
  TokenOptions options_;
  TokenTime time_;
  TokenUsage usage_;
  TokenIndex index_;
  // No token is due before this, as far as the expiring thread knows.
  std::atomic<std::int64_t> next_due_ns_{INT64_MAX};
  // No record of table `Y` comes before this key: whoever makes one reads the time under the
  // mutation lock, so it is due after all that any earlier transaction has cleared away. A scan
  // that began where the table does would step over every record deleted since the last checkpoint.
  mutable std::mutex expiry_mutex_;  // a leaf lock
  std::string first_due_key_ = keys::table_begin(keys::kTokenExpiry);
  std::set<TokenId> damaged_;  // their ropes cannot be given up
};

}  // namespace odx
