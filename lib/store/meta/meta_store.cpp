// The metadata store: what transactions changed lately in a memtable, everything older in LMDB.
//
// A key's value is the one in the memtable, else the one in the frozen memtable (there is one only
// while a checkpoint runs), else the one in LMDB. A reader looks through the first two and takes
// its LMDB snapshot in one shared section of state_lock_, which is one moment; it reads LMDB, where
// it may have to wait for the disk, after leaving it. A commit changes memtable, open batch and
// committed() in one exclusive section, so no reader sees half of a transaction.
//
// Invariants
// - The memtable holds exactly what batches since its birth hold, sealed and open. A checkpoint
//   freezes it in the section that seals a batch: it begins and ends at borders of batches, which
//   are borders of transactions.
// - Batches become durable in the order in which they were sealed, one at a time, by the flusher.
//   Before a batch is written, sync_data() has made the file data durable that it names.
// - LMDB holds the state at the border of some batch, with the place in the journal where the next
//   one starts. Its commit is atomic, so replay from that place always continues exactly there.
// - A batch that finds no room in the journal (it is larger than an append may be, or the ring is
//   full) becomes durable by a checkpoint that ends with it: the LMDB commit is as atomic and as
//   durable as an append. No later batch is written before that commit.
//
// Threads. The flusher seals, syncs and appends (flusher.cpp); the checkpointer writes frozen
// memtables (checkpoint.cpp), so that those who wait for a flush need not wait for a checkpoint
// too. Both end for good at the first error, which then answers everybody (enter_failed).
//
// Locks. state_lock_ and mutex_ are leaves: neither is taken under the other, and neither is held
// during I/O or while a callback runs. (A snapshot is taken under state_lock_; the pool's own lock
// in LmdbBase is a leaf below it.)
#include "store/meta/meta_store.hpp"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <shared_mutex>
#include <utility>

#include "base/fd.hpp"
#include "store/meta/meta_store_impl.hpp"

namespace odx {

namespace {

// The first key there can be: a first byte of 0 is reserved for the store's own records.
constexpr std::string_view kFirstKey("\x01", 1);

std::string meta_path(const std::string& store_dir) { return store_dir + "/meta"; }
std::string journal_path(const std::string& store_dir) { return store_dir + "/journal"; }

bool crosses(std::uint64_t before, std::uint64_t after, std::uint64_t limit) {
  return before < limit && after >= limit;
}

struct Recent {
  std::string_view key;
  SharedValue value;
};

// The newest entries of both memtables with from <= key < end, deletions included, up to and with
// the `limit`th that is not a deletion.
std::vector<Recent> collect(const Memtable& newer, const Memtable* older, std::string_view from,
                            std::string_view end, std::size_t limit) {
  static const Memtable kNone;
  const Memtable::Map& a_map = newer.entries();
  const Memtable::Map& b_map = (older != nullptr ? older : &kNone)->entries();
  std::vector<Recent> out;
  std::size_t alive = 0;
  auto a = a_map.lower_bound(from);
  auto b = b_map.lower_bound(from);
  while (alive < limit) {
    const bool has_a = a != a_map.end() && a->first < end;
    const bool has_b = b != b_map.end() && b->first < end;
    if (!has_a && !has_b) {
      break;
    }
    const bool take_a = has_a && (!has_b || a->first <= b->first);
    if (take_a && has_b && a->first == b->first) {
      ++b;
    }
    const auto& taken = take_a ? *a++ : *b++;
    out.push_back({taken.first, taken.second.value});
    alive += taken.second.value ? 1 : 0;
  }
  return out;
}

}  // namespace

struct MetaStoreImpl::View {
  std::shared_ptr<const Memtable> newer;  // these two keep the keys in `recent` alive
  std::shared_ptr<const Memtable> older;
  std::vector<Recent> recent;
  LmdbBase::Snapshot base;
};

MetaStoreImpl::MetaStoreImpl(std::unique_ptr<LmdbBase> base, std::unique_ptr<Journal> journal,
                             const MetaOptions& options, std::function<Result<void>()> sync_data,
                             std::function<void(TxnSeq)> on_durable)
    : options_(options),
      sync_data_(std::move(sync_data)),
      on_durable_(std::move(on_durable)),
      base_(std::move(base)),
      journal_(std::move(journal)) {}

MetaStoreImpl::~MetaStoreImpl() { stop_threads(); }

Result<void> MetaStoreImpl::start() {
  applied_ = ODX_TRY(base_->applied());
  closed_ = applied_.closed;
  const auto put = [this](std::string key, SharedValue value) {
    memtable_->put(Memtable::make_change(std::move(key), std::move(value)));
  };
  replay_end_ = ODX_TRY(journal_->replay(applied_.next, applied_.lsn + 1, applied_.closed,
                                         [&](Lsn, std::string_view payload) -> Result<void> {
                                           ++replayed_batches_;
                                           return decode_batch(payload, put);
                                         }));
  memtable_bytes_ = memtable_->bytes();
  read_only_ = options_.read_only;
  if (replay_end_ == JournalEnd::kDamaged && options_.drop_damaged_tail && !read_only_) {
    ODX_TRY(journal_->give_up_tail());
    applied_ = {journal_->next_lsn() - 1, journal_->next_position(), true};
    ODX_TRY(base_->apply(*memtable_, applied_));
    memtable_ = std::make_shared<Memtable>();
    memtable_bytes_ = 0;
  } else if (replay_end_ == JournalEnd::kDamaged) {
    read_only_ = true;
    failure_.emplace(EROFS, "the journal is damaged: batch " +
                                std::to_string(journal_->next_lsn().value()) +
                                " was acknowledged and cannot be read");
  }
  if (read_only_) {
    writable_ = false;
    return {};
  }
  checkpointer_ = std::thread([this] { run_checkpointer(); });
  flusher_ = std::thread([this] { run_flusher(); });
  return {};
}

Result<std::optional<std::string>> MetaStoreImpl::get(std::string_view key) const {
  TxnSeq stamp;
  return get_stamped(key, stamp);
}

Result<std::optional<std::string>> MetaStoreImpl::get_stamped(std::string_view key,
                                                              TxnSeq& stamp) const {
  if (!key_is_valid(key)) {
    return fail(EINVAL, "impossible key");
  }
  std::shared_lock lock(state_lock_);
  stamp = committed();
  const Memtable::Entry* recent = memtable_->find(key);
  if (recent == nullptr && frozen_ != nullptr) {
    recent = frozen_->find(key);
  }
  if (recent != nullptr) {
    const SharedValue value = recent->value;
    lock.unlock();
    return value ? std::optional<std::string>(*value) : std::nullopt;
  }
  const LmdbBase::Snapshot base = ODX_TRY(base_->snapshot());
  lock.unlock();
  return base.get(key);
}

Result<MetaStoreImpl::View> MetaStoreImpl::view(std::string_view from, std::string_view end,
                                                std::size_t limit) const {
  const std::shared_lock lock(state_lock_);
  return View{memtable_, frozen_, collect(*memtable_, frozen_.get(), from, end, limit),
              ODX_TRY(base_->snapshot())};
}

Result<std::vector<KeyValue>> MetaStoreImpl::scan(std::string_view from, std::string_view end,
                                                  std::size_t limit) const {
  std::vector<KeyValue> out;
  from = std::max(from, kFirstKey);
  if (from >= end || limit == 0) {
    return out;
  }
  const View now = ODX_TRY(view(from, end, limit));
  auto recent = now.recent.begin();
  auto base = ODX_TRY(now.base.cursor());
  ODX_TRY(base.seek(from));
  while (out.size() < limit) {
    const bool has_base = !base.at_end() && base.key() < end;
    const bool has_recent = recent != now.recent.end();
    if (has_recent && (!has_base || recent->key <= base.key())) {
      if (has_base && recent->key == base.key()) {
        ODX_TRY(base.next());
      }
      if (recent->value) {
        out.push_back({std::string(recent->key), *recent->value});
      }
      ++recent;
    } else if (has_base) {
      // On its own: to leave from inside an expression leaks what is made of it so far.
      const std::string_view value = ODX_TRY(base.value());
      out.push_back({std::string(base.key()), std::string(value)});
      ODX_TRY(base.next());
    } else {
      break;
    }
  }
  return out;
}

MetaStoreImpl::Deletions MetaStoreImpl::look_below(
    const std::vector<Memtable::Change>& changes) const {
  const auto deletions = std::count_if(changes.begin(), changes.end(), [](const auto& change) {
    return change.mapped().value == nullptr;
  });
  Deletions found;
  found.nothing_below.reserve(static_cast<std::size_t>(deletions));
  std::shared_lock lock(state_lock_);
  found.layers = layers_changed_;
  const std::shared_ptr<const Memtable> frozen = frozen_;
  const Result<LmdbBase::Snapshot> base =
      deletions == 0 ? fail(ENOENT) : Result<LmdbBase::Snapshot>(base_->snapshot());
  lock.unlock();
  for (const Memtable::Change& change : changes) {
    if (change.mapped().value != nullptr) {
      continue;
    }
    const Memtable::Entry* in_frozen = frozen != nullptr ? frozen->find(change.key()) : nullptr;
    if (in_frozen != nullptr) {
      found.nothing_below.push_back(in_frozen->value == nullptr);
      continue;
    }
    // A value that cannot be read is there, too.
    const auto in_base =
        base ? base->get(change.key()) : Result<std::optional<std::string>>(fail(EIO));
    found.nothing_below.push_back(in_base && !*in_base);
  }
  return found;
}

Result<TxnSeq> MetaStoreImpl::commit(WriteSet writes) {
  ODX_TRY(check_writable());
  ODX_TRY(leave_closed_state());
  // Half a transaction must never be seen, so all memory is taken before anything changes.
  std::vector<Memtable::Change> changes;
  changes.reserve(writes.size());
  while (!writes.empty()) {
    auto node = writes.extract(writes.begin());
    ODX_CHECK(key_is_valid(node.key()));
    SharedValue value;
    if (node.mapped()) {
      ODX_CHECK(node.mapped()->size() <= kMaxValueBytes);
      value = std::make_shared<const std::string>(std::move(*node.mapped()));
    }
    changes.push_back(Memtable::make_change(std::move(node.key()), std::move(value)));
  }

  const Deletions deletions = look_below(changes);

  std::uint64_t seq = 0;
  bool first = false;  // of its batch
  bool large = false;
  {
    const std::unique_lock lock(state_lock_);
    open_.reserve(changes.size());
    const bool looked = deletions.layers == layers_changed_;
    auto nothing_below = deletions.nothing_below.begin();
    for (Memtable::Change& change : changes) {
      const bool hide = !change.mapped().value && *nothing_below++ && looked;
      open_.add(memtable_->put(std::move(change), hide));
    }
    seq = committed_ + 1;
    first = sealed_ + 1 == seq;
    const std::uint64_t open_before = open_bytes_.exchange(open_.payload_bytes());
    const std::uint64_t memtable_before = memtable_bytes_.exchange(memtable_->bytes());
    large = crosses(open_before, open_.payload_bytes(), flush_at_bytes()) ||
            crosses(memtable_before, memtable_->bytes(), options_.memtable_bytes);
    committed_ = seq;
  }
  const bool start_timer = first && options_.flush_interval.count() > 0;
  if (start_timer || large) {
    {
      const std::lock_guard lock(mutex_);
      if (start_timer) {
        flush_time_ = SteadyClock::now() + options_.flush_interval;
      }
    }
    flusher_wakes_.notify_one();
  }
  return TxnSeq(seq);
}

// A store that was closed cleanly says so in LMDB, and stops saying so before its first change. A
// host without room for that makes the change fail, and nothing else: LMDB has dropped the
// transaction, the next attempt writes it all anew. After any other error nobody knows what LMDB's
// file holds.
Result<void> MetaStoreImpl::leave_closed_state() {
  if (!closed_) {
    return {};
  }
  const std::lock_guard lock(closed_mutex_);
  if (!closed_) {
    return {};
  }
  ODX_TRY(health());
  AppliedRecord record = applied_;
  record.closed = false;
  if (const auto written = base_->apply(Memtable(), record); !written) {
    const int reason = written.error().errno_value();
    if (reason != ENOSPC && reason != EDQUOT && reason != ENOMEM) {
      enter_failed(written.error());
    }
    return written;
  }
  applied_ = record;
  closed_ = false;
  return {};
}

Result<void> MetaStoreImpl::throttle() {
  ODX_TRY(check_writable());
  ODX_TRY(leave_closed_state());
  const std::uint64_t limit = 4 * options_.batch_bytes;
  if (open_bytes_ > limit) {
    std::unique_lock lock(mutex_);
    progress_.wait(lock, [&] { return open_bytes_ <= limit || !writable_ || stopping_; });
    lock.unlock();
    ODX_TRY(check_writable());
  }
  return {};
}

Result<void> MetaStoreImpl::wait_durable(TxnSeq seq) {
  ODX_CHECK(seq <= committed());
  std::unique_lock lock(mutex_);
  if (seq > durable() && writable_) {
    awaited_ = std::max(awaited_, seq.value());
    flusher_wakes_.notify_one();
    progress_.wait(lock, [&] { return seq <= durable() || failure_ || stopping_; });
  }
  // A store that was opened without being writable has nothing that is not durable.
  if (failure_ && !read_only_) {
    return std::unexpected(*failure_);
  }
  if (seq > durable()) {
    return fail(ESHUTDOWN, "the store is closed");
  }
  return {};
}

Result<void> MetaStoreImpl::checkpoint() {
  ODX_TRY(check_writable());
  const TxnSeq upto = committed();
  std::unique_lock lock(mutex_);
  const std::uint64_t ticket = ++tickets_;
  flusher_wakes_.notify_one();
  const auto done = [&] { return tickets_done_ >= ticket && durable() >= upto; };
  progress_.wait(lock, [&] { return done() || failure_ || stopping_; });
  if (failure_) {
    return std::unexpected(*failure_);
  }
  if (!done()) {
    return fail(ESHUTDOWN, "the store is closed");
  }
  return {};
}

Result<void> MetaStoreImpl::close() {
  if (!flusher_.joinable()) {
    return {};  // read-only, or closed before
  }
  Result<void> result = checkpoint();
  writable_ = false;
  stop_threads();
  return result ? mark_closed() : result;
}

Result<void> MetaStoreImpl::mark_closed() {
  if (closed_ || !memtable_->empty()) {
    return {};
  }
  applied_ = {journal_->next_lsn() - 1, journal_->next_position(), true};
  return base_->apply(Memtable(), applied_);
}

void MetaStoreImpl::stop_threads() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  flusher_wakes_.notify_all();
  progress_.notify_all();
  if (flusher_.joinable()) {
    flusher_.join();
  }
  {
    const std::lock_guard lock(mutex_);
    flusher_gone_ = true;
  }
  checkpointer_wakes_.notify_all();
  if (checkpointer_.joinable()) {
    checkpointer_.join();
  }
}

void MetaStoreImpl::enter_failed(const Error& error) {
  {
    const std::lock_guard lock(mutex_);
    if (!failure_) {
      failure_ = error;
    }
    writable_ = false;
  }
  flusher_wakes_.notify_all();
  progress_.notify_all();
}

Result<void> MetaStoreImpl::check_writable() const {
  if (writable_) {
    return {};
  }
  const std::lock_guard lock(mutex_);
  if (failure_) {
    return std::unexpected(*failure_);
  }
  return read_only_ ? fail(EROFS, "the store is open read-only")
                    : fail(ESHUTDOWN, "the store is closed");
}

Result<void> MetaStoreImpl::health() const {
  const std::lock_guard lock(mutex_);
  if (failure_) {
    return std::unexpected(*failure_);
  }
  return {};
}

MetaStats MetaStoreImpl::stats() const {
  MetaStats stats;
  stats.commits = committed_;
  stats.flushes = flushes_;
  stats.journal_bytes = journal_bytes_;
  stats.checkpoints = checkpoints_;
  stats.replay_end = replay_end_;
  stats.replayed_batches = replayed_batches_;
  const std::shared_lock lock(state_lock_);
  stats.memtable_bytes = memtable_->bytes() + (frozen_ != nullptr ? frozen_->bytes() : 0);
  return stats;
}

Result<void> MetaStore::format(const std::string& store_dir, std::uint64_t ring_bytes) {
  ODX_TRY(LmdbBase::format(meta_path(store_dir)));
  ODX_TRY(Journal::format(journal_path(store_dir), ring_bytes));
  const Fd fd(::open(store_dir.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd.valid() || ::fsync(fd.get()) != 0) {
    return fail(errno, "cannot sync " + store_dir);
  }
  return {};
}

Result<std::unique_ptr<MetaStore>> MetaStore::open(const std::string& store_dir, const Uuid& uuid,
                                                   const MetaOptions& options,
                                                   std::function<Result<void>()> sync_data,
                                                   std::function<void(TxnSeq)> on_durable) {
  auto base = ODX_TRY(LmdbBase::open(meta_path(store_dir), options.map_bytes, options.read_only));
  struct stat status {};
  if (::lstat(journal_path(store_dir).c_str(), &status) == 0 && !S_ISREG(status.st_mode)) {
    return fail(EINVAL, journal_path(store_dir) + " is not part of a store");
  }
  auto journal = ODX_TRY(Journal::open(journal_path(store_dir), uuid, options.read_only));
  auto store = std::make_unique<MetaStoreImpl>(std::move(base), std::move(journal), options,
                                               std::move(sync_data), std::move(on_durable));
  ODX_TRY(store->start());
  return store;
}

}  // namespace odx
