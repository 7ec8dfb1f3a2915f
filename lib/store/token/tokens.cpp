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
//   - A live record counts in usage_ and is in index_; both change in the critical section of the
//     transaction that changes the table.
//   - A tombstone keeps the secret, so that only who held the token is told that it has expired.
//     Table `T` is bounded by the limits, and by what can be made within a minute.
//
// Time is a TokenTime. A clock that is set back neither ends a token nor prolongs it, nor does it
// keep expired ones from being cleared away; a restart takes up from the latest time that any
// record has seen. A clock that is set forward is time that has passed: it cannot be told from a
// suspended or switched-off machine, and ending a token early costs its holder a second READ,
// while keeping it would cost everybody the space.
//
// Guessing. Knowing the secret is the right to the bytes, so how long a refusal takes must not
// depend on how much of it is right. A token is looked up by its id, 16 random bytes that are told
// to its owner and to root and are worth nothing by themselves; then the one right token is put
// together and all 512 bytes are compared by sodium_memcmp(), which looks at every byte whatever
// it has seen. What tells an expired token, another user's or a transfer beyond the token's span
// apart comes after that, so it is told to holders only. A wrong secret is refused at the first
// examination, without the mutation lock. What can be timed is whether an id exists, and whether
// the public fields (type, version, store) are in order.
//
// Locks: whatever changes a token is a Mutation; usage_, index_ and time_ have leaf locks. Nothing
// is held while a caller waits for durability.
#include "store/token/tokens.hpp"

#include <algorithm>
#include <utility>

#include "store/meta/keys.hpp"
#include "store/mutation.hpp"

namespace odx {

namespace {

constexpr std::size_t kExpirePerTransaction = 64;
constexpr std::int64_t kTombstoneNs = 60 * kNsPerSecond;
constexpr std::size_t kScan = 256;
constexpr std::size_t kShortScan = 32;

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

int Tokens::concluded(const Answer& answer, proto::Control control, odx_offload& call) {
  const proto::Verdict verdict =
      answer ? *answer : proto::verdict_for_errno(answer.error().errno_value(), control);
  if (verdict.errno_value != 0) {
    proto::fill_failure(call, verdict);
    core_.counters.refused.at(verdict.reason).fetch_add(1, std::memory_order_relaxed);
  }
  return verdict.errno_value;
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
  if (uid == 0) {
    return list_all(after, limit);
  }
  const std::int64_t now = now_ns();
  std::vector<odx_token_info> out;
  TokenId from = after;
  while (out.size() < limit) {
    const std::vector<TokenId> ids = index_.behind(uid, from, limit - out.size());
    if (ids.empty()) {
      break;
    }
    for (const TokenId& id : ids) {
      const std::optional<TokenRecord> record = ODX_TRY(find(*core_.meta, id));
      if (record && record->alive(now)) {
        out.push_back(describe(*record));
      }
    }
    from = ids.back();
  }
  return out;
}

Result<std::vector<odx_token_info>> Tokens::list_all(const TokenId& after, std::size_t limit) {
  const std::int64_t now = now_ns();
  std::vector<odx_token_info> out;
  std::string from = behind(keys::token(after));
  while (out.size() < limit) {
    const std::size_t page = std::clamp(limit - out.size(), kShortScan, kScan);
    const auto records = ODX_TRY(core_.meta->scan(from, keys::table_end(keys::kToken), page));
    for (const KeyValue& kv : records) {
      const TokenId id = ODX_TRY(token_id_of_key(kv.key));
      const TokenRecord record = ODX_TRY(TokenRecord::decode(id, kv.value));
      if (out.size() < limit && record.alive(now)) {
        out.push_back(describe(record));
      }
    }
    if (records.size() < page) {
      break;
    }
    from = behind(records.back().key);
  }
  return out;
}

odx_token_info Tokens::describe(const TokenRecord& record) const {
  odx_token_info info{};
  std::copy(record.id.begin(), record.id.end(), info.id);
  info.uid = record.uid;
  info.length = record.span;
  info.data_bytes = record.data_bytes();
  info.created_ns = time_.on_the_wall(record.created_ns);
  info.expires_ns = time_.on_the_wall(record.due_ns);
  return info;
}

Result<TokenRecord> Tokens::droppable(const KvReader& kv, const TokenId& id, std::uint32_t uid) {
  std::optional<TokenRecord> record = ODX_TRY(find(kv, id));
  if (!record || !record->alive(now_ns())) {
    return fail(ENOENT, "no such token");
  }
  if (uid != 0 && uid != record->uid) {
    return fail(EPERM, "another user's token");
  }
  return *std::move(record);
}

Result<void> Tokens::drop(const TokenId& id, std::uint32_t uid) {
  // First without the mutation lock: whoever asks for what is not his keeps nobody waiting.
  ODX_TRY(droppable(*core_.meta, id, uid));
  Mutation mutation = ODX_TRY(Mutation::begin(core_));
  TokenRecord record = ODX_TRY(droppable(mutation.kv(), id, uid));
  const std::uint64_t data_bytes = record.data_bytes();
  mutation.kv().erase(record.key());
  mutation.kv().erase(record.expiry_key());
  ODX_TRY(mutation.trees().drop(std::move(record.tree)));
  ODX_TRY(mutation.commit([&] {
    usage_.remove_live(record.uid, data_bytes);
    index_.remove(record.uid, id);
  }));
  core_.counters.tokens_dropped.fetch_add(1, std::memory_order_relaxed);
  return {};
}

Result<std::optional<std::int64_t>> Tokens::expire() {
  if (core_.read_only) {
    return std::nullopt;
  }
  // From here on a new token lowers it again, so that none made behind the last scan is missed.
  next_due_ns_.store(INT64_MAX);
  while (ODX_TRY(expire_some()) > 0) {
  }
  const auto first =
      ODX_TRY(core_.meta->scan(first_due_key(), keys::table_end(keys::kTokenExpiry), 1));
  if (first.empty()) {
    return std::nullopt;
  }
  const TokenDue due = ODX_TRY(token_due_of_key(first.front().key));
  announce_due(due.due_ns);
  return std::max<std::int64_t>(due.due_ns - now_ns(), 0);
}

// One transaction of it; answers with the number of `Y` records that it dealt with, 0 if none is
// due. What is damaged stays for the checker to report, and must not keep other tokens alive.
Result<std::size_t> Tokens::expire_some() {
  bool spoiled = false;
  const Result<std::size_t> done = expire_some(kExpirePerTransaction, spoiled);
  return spoiled ? expire_some(1, spoiled) : done;
}

// `spoiled`: several were due, and one of them spoils the transaction; singly, it is known which.
Result<std::size_t> Tokens::expire_some(std::size_t most, bool& spoiled) {
  const std::int64_t now = now_ns();
  const std::string end = keys::numbered(keys::kTokenExpiry, static_cast<std::uint64_t>(now) + 1);
  // Most calls find nothing due: they need no transaction.
  if (ODX_TRY(core_.meta->scan(first_due_key(), end, 1)).empty()) {
    return 0;
  }
  struct Ended {
    TokenId id;
    TokenRecord::State was;
    std::uint32_t uid;
    std::uint64_t data_bytes;
  };
  std::vector<Ended> ended;
  Mutation mutation = ODX_TRY(Mutation::begin(core_));
  const auto due = ODX_TRY(mutation.kv().scan(first_due_key(), end, most));
  for (const KeyValue& kv : due) {
    mutation.kv().erase(kv.key);
    const Result<TokenDue> entry = token_due_of_key(kv.key);
    if (!entry || is_damaged(entry->id)) {
      continue;
    }
    Result<std::optional<TokenRecord>> found = find(mutation.kv(), entry->id);
    if (!found && !found.error().is_corruption()) {
      return std::unexpected(found.error());
    }
    if (!found || !*found) {
      continue;
    }
    TokenRecord record = std::move(**found);
    if (record.due_ns > now) {  // a stale entry: the record knows better
      mutation.kv().put(record.expiry_key(), {});
      continue;
    }
    ended.push_back({record.id, record.state, record.uid, record.data_bytes()});
    if (!record.live()) {
      mutation.kv().erase(record.key());
      continue;
    }
    if (const auto dropped = mutation.trees().drop(std::exchange(record.tree, {})); !dropped) {
      if (!dropped.error().is_corruption()) {
        return std::unexpected(dropped.error());
      }
      // This spoils the transaction; the next one passes the token by.
      const std::lock_guard lock(expiry_mutex_);
      damaged_.insert(record.id);
      return 1;
    }
    record.state = TokenRecord::State::kExpired;
    record.due_ns = later(now, kTombstoneNs);
    mutation.kv().put(record.key(), record.encode());
    mutation.kv().put(record.expiry_key(), {});
  }
  if (const auto prepared = mutation.prepare(); !prepared) {
    if (!prepared.error().is_corruption()) {
      return std::unexpected(prepared.error());
    }
    // One of them frees what is not its own.
    if (due.size() > 1) {
      spoiled = true;
      return 0;
    }
    const std::lock_guard lock(expiry_mutex_);
    damaged_.insert(ended.front().id);
    return 1;
  }
  std::uint64_t expired = 0;
  ODX_TRY(mutation.commit([&] {
    for (const Ended& token : ended) {
      if (token.was == TokenRecord::State::kLive) {
        usage_.live_to_tombstone(token.uid, token.data_bytes);
        index_.remove(token.uid, token.id);
        ++expired;
      } else {
        usage_.remove_tombstone(token.uid);
      }
    }
  }));
  set_first_due_key(due.size() == most
                        ? due.back().key
                        : keys::numbered(keys::kTokenExpiry, static_cast<std::uint64_t>(now)));
  core_.counters.tokens_expired.fetch_add(expired, std::memory_order_relaxed);
  return due.size();
}

std::string Tokens::first_due_key() const {
  const std::lock_guard lock(expiry_mutex_);
  return first_due_key_;
}

void Tokens::set_first_due_key(std::string key) {
  const std::lock_guard lock(expiry_mutex_);
  first_due_key_ = std::max(first_due_key_, std::move(key));
}

bool Tokens::is_damaged(const TokenId& id) const {
  const std::lock_guard lock(expiry_mutex_);
  return damaged_.contains(id);
}

void Tokens::announce_due(std::int64_t due_ns) {
  std::int64_t known = next_due_ns_.load();
  while (due_ns < known && !next_due_ns_.compare_exchange_weak(known, due_ns)) {
  }
}

Result<void> Tokens::load() {
  std::int64_t seen_ns = 0;  // the latest time that a record tells of
  std::string from = keys::table_begin(keys::kToken);
  while (true) {
    const auto records = ODX_TRY(core_.meta->scan(from, keys::table_end(keys::kToken), kScan));
    for (const KeyValue& kv : records) {
      const TokenId id = ODX_TRY(token_id_of_key(kv.key));
      const TokenRecord record = ODX_TRY(TokenRecord::decode(id, kv.value));
      if (record.live()) {
        usage_.add_live(record.uid, record.data_bytes());
        index_.add(record.uid, id);
        seen_ns = std::max(seen_ns, record.last_used_ns);
      } else {
        usage_.add_tombstone(record.uid);
        seen_ns = std::max(seen_ns, record.due_ns - kTombstoneNs);
      }
    }
    if (records.size() < kScan) {
      time_.not_before(*core_.clock, seen_ns);
      return {};
    }
    from = behind(records.back().key);
  }
}

}  // namespace odx
