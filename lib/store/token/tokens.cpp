// A token is a `T` record that owns a rope, as an inode owns its own: OFFLOAD_READ makes one from a
// slice of a file (offload_read.cpp), OFFLOAD_WRITE splices a slice of it into a file
// (offload_write.cpp). Here is the rest of its life.
//
//     made -> live -> (its timer runs out) -> expired: a tombstone, for kTombstoneNs -> gone
//              `-> dropped: gone at once
//
// Invariants
//   - Every `T` record has exactly one `Y` record, at its due time, made and moved in the same
//     transaction. expire() walks table `Y` and nothing else.
//   - A token is alive while now < due. Whether expire() has come by yet is nobody's business: the
//     controls, list() and drop() look at the time.
//   - A live record counts in usage_ (which runs ahead of the table, never behind).
//   - A tombstone keeps the secret, so that only who held the token is told that it has expired.
//
// Locks: whatever changes a token is a Mutation; usage_ has a leaf lock. Nothing is held while a
// caller waits for durability.
#include "store/token/tokens.hpp"

#include <algorithm>
#include <utility>

#include "store/meta/keys.hpp"
#include "store/mutation.hpp"

namespace odx {

namespace {

constexpr std::int64_t kTombstoneNs = 60 * kNsPerSecond;
constexpr std::size_t kExpirePerTransaction = 64;
constexpr std::size_t kScan = 256;

odx_token_info describe(const TokenRecord& record) {
  odx_token_info info{};
  std::copy(record.id.begin(), record.id.end(), info.id);
  info.uid = record.uid;
  info.length = record.span;
  info.data_bytes = record.data_bytes();
  info.created_ns = record.created_ns;
  info.expires_ns = record.due_ns;
  return info;
}

// The first key behind `key`.
std::string behind(std::string key) { return std::move(key) + '\0'; }

}  // namespace

Tokens::Tokens(Core& core, const TokenOptions& options) : core_(core), options_(options) {
  options_.ttl_max_ms = std::clamp<std::uint64_t>(options_.ttl_max_ms, 1, kLongestTtlMs);
  options_.ttl_default_ms =
      std::clamp<std::uint64_t>(options_.ttl_default_ms, 1, options_.ttl_max_ms);
}

proto::FileFacts Tokens::facts(const Inode& inode, const OffloadCaller& caller) const {
  proto::FileFacts facts;
  facts.is_regular = inode.is_regular();
  facts.is_directory = inode.is_directory();
  facts.readable = caller.readable;
  facts.writable = caller.writable;
  facts.read_only_fs = core_.read_only;
  facts.disabled = caller.disabled;
  facts.range_locked = caller.range_locked;
  facts.extend_allowed = options_.extend;
  facts.sector = core_.super.sector_bytes;
  facts.eof = inode.is_regular() ? inode.size() : 0;
  return facts;
}

Result<std::optional<TokenRecord>> Tokens::find(const KvReader& kv, const TokenId& id) {
  const std::optional<std::string> value = ODX_TRY(kv.get(keys::token(id)));
  if (!value) {
    return std::nullopt;
  }
  return ODX_TRY(TokenRecord::decode(id, *value));
}

Result<std::vector<odx_token_info>> Tokens::list(const TokenId& after, std::size_t limit,
                                                 std::uint32_t uid) {
  const std::int64_t now = core_.clock->now_ns();
  std::vector<odx_token_info> out;
  std::string from = behind(keys::token(after));
  while (out.size() < limit) {
    const auto records = ODX_TRY(core_.meta->scan(from, keys::table_end(keys::kToken), kScan));
    for (const KeyValue& kv : records) {
      const TokenId id = ODX_TRY(token_id_of_key(kv.key));
      const TokenRecord record = ODX_TRY(TokenRecord::decode(id, kv.value));
      if (out.size() < limit && record.alive(now) && (uid == 0 || uid == record.uid)) {
        out.push_back(describe(record));
      }
    }
    if (records.size() < kScan) {
      break;
    }
    from = behind(records.back().key);
  }
  return out;
}

Result<void> Tokens::drop(const TokenId& id, std::uint32_t uid) {
  Mutation mutation = ODX_TRY(Mutation::begin(core_));
  std::optional<TokenRecord> record = ODX_TRY(find(mutation.kv(), id));
  if (!record || !record->alive(mutation.now_ns())) {
    return fail(ENOENT, "no such token");
  }
  if (uid != 0 && uid != record->uid) {
    return fail(EPERM, "another user's token");
  }
  const std::uint64_t data_bytes = record->data_bytes();
  mutation.kv().erase(record->key());
  mutation.kv().erase(record->expiry_key());
  ODX_TRY(mutation.trees().drop(std::move(record->tree)));
  ODX_TRY(mutation.commit());
  usage_.remove_live(record->uid, data_bytes);
  return {};
}

Result<std::optional<std::int64_t>> Tokens::expire() {
  if (core_.read_only) {
    return std::nullopt;
  }
  // From here on a new token lowers it again, so that none made behind the last scan is missed.
  next_due_ns_.store(INT64_MAX);
  while (ODX_TRY(expire_some()) == kExpirePerTransaction) {
  }
  const auto first = ODX_TRY(core_.meta->scan(keys::table_begin(keys::kTokenExpiry),
                                              keys::table_end(keys::kTokenExpiry), 1));
  if (first.empty()) {
    return std::nullopt;
  }
  const TokenDue due = ODX_TRY(token_due_of_key(first.front().key));
  announce_due(due.due_ns);
  return std::max<std::int64_t>(due.due_ns - core_.clock->now_ns(), 0);
}

// One transaction of it; answers with the number of `Y` records that it dealt with.
Result<std::size_t> Tokens::expire_some() {
  const std::int64_t now = core_.clock->now_ns();
  const std::string end = keys::numbered(keys::kTokenExpiry, static_cast<std::uint64_t>(now) + 1);
  // Most calls find nothing due: they need no transaction.
  if (ODX_TRY(core_.meta->scan(keys::table_begin(keys::kTokenExpiry), end, 1)).empty()) {
    return 0;
  }
  struct Ended {
    TokenRecord::State was;
    std::uint32_t uid;
    std::uint64_t data_bytes;
  };
  std::vector<Ended> ended;
  Mutation mutation = ODX_TRY(Mutation::begin(core_));
  const auto due = ODX_TRY(
      mutation.kv().scan(keys::table_begin(keys::kTokenExpiry), end, kExpirePerTransaction));
  for (const KeyValue& kv : due) {
    mutation.kv().erase(kv.key);
    const TokenDue entry = ODX_TRY(token_due_of_key(kv.key));
    Result<std::optional<TokenRecord>> found = find(mutation.kv(), entry.id);
    if (!found && !found.error().is_corruption()) {
      return std::unexpected(found.error());
    }
    // A damaged record stays for the checker to report, and must not keep the others alive.
    if (!found || !*found) {
      continue;
    }
    TokenRecord record = std::move(**found);
    if (record.due_ns > now) {  // a stale entry: the record knows better
      mutation.kv().put(record.expiry_key(), {});
      continue;
    }
    ended.push_back({record.state, record.uid, record.data_bytes()});
    if (!record.live()) {
      mutation.kv().erase(record.key());
      continue;
    }
    ODX_TRY(mutation.trees().drop(std::exchange(record.tree, {})));
    record.state = TokenRecord::State::kExpired;
    record.due_ns = now + kTombstoneNs;
    mutation.kv().put(record.key(), record.encode());
    mutation.kv().put(record.expiry_key(), {});
  }
  ODX_TRY(mutation.commit());
  for (const Ended& token : ended) {
    if (token.was == TokenRecord::State::kLive) {
      usage_.live_to_tombstone(token.uid, token.data_bytes);
      core_.counters.tokens_expired.fetch_add(1, std::memory_order_relaxed);
    } else {
      usage_.remove_tombstone(token.uid);
    }
  }
  return due.size();
}

void Tokens::announce_due(std::int64_t due_ns) {
  std::int64_t known = next_due_ns_.load();
  while (due_ns < known && !next_due_ns_.compare_exchange_weak(known, due_ns)) {
  }
}

Result<void> Tokens::load() {
  std::string from = keys::table_begin(keys::kToken);
  while (true) {
    const auto records = ODX_TRY(core_.meta->scan(from, keys::table_end(keys::kToken), kScan));
    for (const KeyValue& kv : records) {
      const TokenId id = ODX_TRY(token_id_of_key(kv.key));
      const TokenRecord record = ODX_TRY(TokenRecord::decode(id, kv.value));
      if (record.live()) {
        usage_.add_live(record.uid, record.data_bytes());
      } else {
        usage_.add_tombstone(record.uid);
      }
    }
    if (records.size() < kScan) {
      return {};
    }
    from = behind(records.back().key);
  }
}

}  // namespace odx
