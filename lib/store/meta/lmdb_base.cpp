// LMDB in its default, safe mode: copy-on-write pages, two alternating meta pages, two flushes per
// commit. A commit is atomic and durable by itself, so the base needs no log.
//
// Readers. A snapshot is a read transaction from a pool, not bound to its thread (MDB_NOTLS). A
// resting transaction is reset, holding its slot in the reader table but no view; renewing it costs
// a fraction of a microsecond. The pool is as large as the most readers at one time.
//
// The map. Its size may only change while no transaction runs, so growing closes the pool's door,
// waits for the snapshots outside (all short) and lets them in again when the new map is in place.
//
// The applied record stands under a key whose first byte is 0; users' keys never begin so.
#include "store/meta/lmdb_base.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <span>
#include <utility>

#include "base/codec.hpp"
#include "base/fd.hpp"
#include "store/meta/base_verify.hpp"
#include "store/meta/sealed_value.hpp"

namespace odx {

namespace {

constexpr std::string_view kAppliedKey("\0applied", 8);
constexpr unsigned kMaxReaders = 510;
constexpr std::size_t kMaxSlots = 500;  // below kMaxReaders: a crashed process may hold some
constexpr std::uint64_t kFormatMapBytes = 1ULL << 20;

std::unexpected<Error> lmdb_error(int code, const std::string& what) {
  const std::string detail = what + " (" + ::mdb_strerror(code) + ")";
  switch (code) {
    case MDB_CORRUPTED:
    case MDB_PAGE_NOTFOUND:
    case MDB_INVALID:
    case MDB_VERSION_MISMATCH:
    case MDB_PANIC:
      return corrupt(detail);
    case MDB_MAP_FULL:
      return fail(ENOSPC, detail);
    default:
      return fail(code > 0 ? code : EIO, detail);
  }
}

MDB_val as_val(std::string_view bytes) {
  // LMDB only reads what it is given, whatever the type says.
  return {bytes.size(), const_cast<char*>(bytes.data())};
}

std::string_view as_text(const MDB_val& val) {
  return {static_cast<const char*>(val.mv_data), val.mv_size};
}

struct AbortTxn {
  void operator()(MDB_txn* txn) const { ::mdb_txn_abort(txn); }
};
using Txn = std::unique_ptr<MDB_txn, AbortTxn>;

struct CloseCursor {
  void operator()(MDB_cursor* cursor) const { ::mdb_cursor_close(cursor); }
};
using OwnedCursor = std::unique_ptr<MDB_cursor, CloseCursor>;

Result<Txn> begin(MDB_env* env, unsigned flags) {
  MDB_txn* txn = nullptr;
  if (const int code = ::mdb_txn_begin(env, nullptr, flags, &txn); code != 0) {
    return lmdb_error(code, "cannot begin a transaction of the metadata base");
  }
  return Txn(txn);
}

int put(MDB_cursor* cursor, std::string_view key, std::string_view value) {
  MDB_val k = as_val(key);
  MDB_val room{value.size() + kSealBytes, nullptr};
  const int code = ::mdb_cursor_put(cursor, &k, &room, MDB_RESERVE);
  if (code == 0) {
    seal_value(key, value, {static_cast<char*>(room.mv_data), room.mv_size});
  }
  return code;
}

int erase(MDB_cursor* cursor, std::string_view key) {
  MDB_val k = as_val(key);
  MDB_val v{};
  const int code = ::mdb_cursor_get(cursor, &k, &v, MDB_SET);
  if (code == MDB_NOTFOUND) {
    return 0;
  }
  return code != 0 ? code : ::mdb_cursor_del(cursor, 0);
}

int put_all(MDB_cursor* cursor, const Memtable& changes, std::string_view applied) {
  int code = put(cursor, kAppliedKey, applied);
  for (auto at = changes.entries().begin(); code == 0 && at != changes.entries().end(); ++at) {
    const SharedValue& value = at->second.value;
    code = value ? put(cursor, at->first, *value) : erase(cursor, at->first);
  }
  return code;
}

}  // namespace

struct LmdbBase::ReadSlot {
  // The cursor must go first.
  Txn txn;
  OwnedCursor cursor;  // null until first needed
};

LmdbBase::LmdbBase(Env env, std::string directory)
    : directory_(std::move(directory)), env_(std::move(env)) {}

LmdbBase::~LmdbBase() = default;

Result<LmdbBase::Env> LmdbBase::open_env(const std::string& directory, std::uint64_t map_bytes,
                                         unsigned flags) {
  MDB_env* raw = nullptr;
  const auto page = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
  int code = ::mdb_env_create(&raw);
  Env env(raw);
  if (code == 0) {
    code = ::mdb_env_set_maxreaders(raw, kMaxReaders);
  }
  if (code == 0) {
    code = ::mdb_env_set_mapsize(raw, round_up(map_bytes, page));
  }
  if (code == 0) {
    code = ::mdb_env_open(raw, directory.c_str(), flags | MDB_NOTLS, 0600);
  }
  if (code != 0) {
    return lmdb_error(code, "cannot open the metadata base " + directory);
  }
  return env;
}

Result<void> LmdbBase::format(const std::string& directory) {
  if (::mkdir(directory.c_str(), 0700) != 0) {
    return fail(errno, "cannot create " + directory);
  }
  {
    LmdbBase base(ODX_TRY(open_env(directory, kFormatMapBytes, 0)), directory);
    ODX_TRY(base.open_database(false));
    ODX_TRY(base.apply(Memtable(), AppliedRecord{Lsn(0), {}, true}));
  }
  const Fd fd(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd.valid() || ::fsync(fd.get()) != 0) {
    return fail(errno, "cannot sync " + directory);
  }
  return {};
}

Result<std::unique_ptr<LmdbBase>> LmdbBase::open(const std::string& directory,
                                                 std::uint64_t map_bytes, bool read_only) {
  // Opening would otherwise create what is missing, and follow links.
  struct stat status {};
  if (::lstat(directory.c_str(), &status) != 0 ||
      ::lstat((directory + "/data.mdb").c_str(), &status) != 0) {
    return fail(errno, "no metadata base in " + directory);
  }
  const auto is_another = [&](const std::string& path, mode_t type) {
    return ::lstat(path.c_str(), &status) == 0 && (status.st_mode & S_IFMT) != type;
  };
  if (is_another(directory, S_IFDIR) || is_another(directory + "/data.mdb", S_IFREG) ||
      is_another(directory + "/lock.mdb", S_IFREG)) {
    return fail(EINVAL, directory + " holds something that is not part of a store");
  }
  // Before LMDB sees it.
  ODX_TRY(verify_base(directory));
  // Without its lock file nothing in the directory is written to.
  const unsigned flags = read_only ? MDB_RDONLY | MDB_NOLOCK : 0U;
  std::unique_ptr<LmdbBase> base(
      new LmdbBase(ODX_TRY(open_env(directory, map_bytes, flags)), directory));
  ODX_TRY(base->cover_all_pages(read_only));
  ODX_TRY(base->open_database(read_only));
  if (int dead = 0; !read_only) {
    // Slots of a process that crashed would pin old pages for ever.
    ::mdb_reader_check(base->env_.get(), &dead);
  }
  return base;
}

// Reading the map behind the end of the file kills the process. The file may rightly be a little
// shorter than its meta page says, as LMDB does not write pages that it allocates and frees again
// in one transaction; that none of its pages in use is missing was verified before. A reader never
// looks at the others; a writer may take them into use.
Result<void> LmdbBase::cover_all_pages(bool read_only) const {
  MDB_envinfo info{};
  MDB_stat stat{};
  mdb_filehandle_t fd = -1;
  struct stat status {};
  ::mdb_env_info(env_.get(), &info);
  ::mdb_env_stat(env_.get(), &stat);
  ::mdb_env_get_fd(env_.get(), &fd);
  if (::fstat(fd, &status) != 0) {
    return fail(errno, "cannot stat the metadata base");
  }
  const off_t wanted = static_cast<off_t>((info.me_last_pgno + 1) * stat.ms_psize);
  if (status.st_size >= wanted || read_only) {
    return {};
  }
  if (::ftruncate(fd, wanted) != 0) {
    return fail(errno, "cannot extend the metadata base");
  }
  return {};
}

Result<void> LmdbBase::open_database(bool read_only) {
  const Txn txn = ODX_TRY(begin(env_.get(), read_only ? MDB_RDONLY : 0));
  if (const int code = ::mdb_dbi_open(txn.get(), nullptr, 0, &dbi_); code != 0) {
    return lmdb_error(code, "cannot open the metadata base");
  }
  return {};
}

Result<LmdbBase::Snapshot> LmdbBase::snapshot() const {
  std::unique_ptr<ReadSlot> slot;
  {
    std::unique_lock lock(mutex_);
    slot_freed_.wait(lock, [this] { return !growing_ && in_use_ < kMaxSlots; });
    if (unreadable_) {
      return std::unexpected(*unreadable_);
    }
    ++in_use_;
    if (!idle_.empty()) {
      slot = std::move(idle_.back());
      idle_.pop_back();
    }
  }
  if (slot == nullptr) {
    slot = std::make_unique<ReadSlot>();
  }
  // From here on the snapshot's destructor gives the slot back.
  Snapshot snapshot(*this, std::move(slot));
  Txn& txn = snapshot.slot_->txn;
  if (txn == nullptr) {
    txn = ODX_TRY(begin(env_.get(), MDB_RDONLY));
  } else if (const int code = ::mdb_txn_renew(txn.get()); code != 0) {
    return lmdb_error(code, "cannot renew a read transaction");
  }
  return snapshot;
}

void LmdbBase::give_back(std::unique_ptr<ReadSlot> slot) const {
  if (slot->txn != nullptr) {
    ::mdb_txn_reset(slot->txn.get());
  }
  {
    const std::lock_guard lock(mutex_);
    --in_use_;
    if (slot->txn != nullptr) {
      idle_.push_back(std::move(slot));
    }
  }
  slot_freed_.notify_all();
}

LmdbBase::Snapshot::Snapshot(const LmdbBase& base, std::unique_ptr<ReadSlot> slot)
    : base_(&base), slot_(std::move(slot)) {}

LmdbBase::Snapshot::Snapshot(Snapshot&&) noexcept = default;

LmdbBase::Snapshot::~Snapshot() {
  if (slot_ != nullptr) {
    base_->give_back(std::move(slot_));
  }
}

Result<std::optional<std::string>> LmdbBase::Snapshot::get(std::string_view key) const {
  MDB_val k = as_val(key);
  MDB_val v{};
  const int code = ::mdb_get(slot_->txn.get(), base_->dbi_, &k, &v);
  if (code == MDB_NOTFOUND) {
    return std::nullopt;
  }
  if (code != 0) {
    return lmdb_error(code, "cannot read from the metadata base");
  }
  return std::string(ODX_TRY(unseal_value(key, as_text(v))));
}

Result<LmdbBase::Snapshot::Cursor> LmdbBase::Snapshot::cursor() const {
  int code = 0;
  if (slot_->cursor == nullptr) {
    MDB_cursor* raw = nullptr;
    code = ::mdb_cursor_open(slot_->txn.get(), base_->dbi_, &raw);
    slot_->cursor.reset(raw);
  } else {
    code = ::mdb_cursor_renew(slot_->txn.get(), slot_->cursor.get());
  }
  if (code != 0) {
    return lmdb_error(code, "cannot open a cursor");
  }
  return Cursor(slot_->cursor.get());
}

Result<void> LmdbBase::Snapshot::Cursor::seek(std::string_view from) {
  return move(as_val(from), MDB_SET_RANGE);
}

Result<void> LmdbBase::Snapshot::Cursor::next() { return move({}, MDB_NEXT); }

Result<void> LmdbBase::Snapshot::Cursor::move(MDB_val key, MDB_cursor_op op) {
  MDB_val value{};
  const int code = ::mdb_cursor_get(cursor_, &key, &value, op);
  at_end_ = code == MDB_NOTFOUND;
  if (code != 0 && !at_end_) {
    return lmdb_error(code, "cannot walk the metadata base");
  }
  key_ = at_end_ ? std::string_view() : as_text(key);
  sealed_ = at_end_ ? std::string_view() : as_text(value);
  return {};
}

Result<std::string_view> LmdbBase::Snapshot::Cursor::value() const {
  return unseal_value(key_, sealed_);
}

Result<AppliedRecord> LmdbBase::applied() const {
  const Snapshot now = ODX_TRY(snapshot());
  const std::optional<std::string> value = ODX_TRY(now.get(kAppliedKey));
  if (!value) {
    return corrupt("the metadata base lacks its applied record");
  }
  Decoder in(*value);
  AppliedRecord record;
  record.lsn = Lsn(in.le<std::uint64_t>());
  record.next.lap = in.le<std::uint64_t>();
  record.next.offset = in.le<std::uint64_t>();
  record.closed = in.le<std::uint8_t>() != 0;
  ODX_TRY(in.finish("applied record"));
  return record;
}

Result<bool> LmdbBase::try_apply(const Memtable& changes, const AppliedRecord& record) {
  std::string applied;
  put_le(applied, record.lsn.value());
  put_le(applied, record.next.lap);
  put_le(applied, record.next.offset);
  put_le(applied, static_cast<std::uint8_t>(record.closed ? 1 : 0));

  Txn txn = ODX_TRY(begin(env_.get(), 0));
  MDB_cursor* raw = nullptr;
  int code = ::mdb_cursor_open(txn.get(), dbi_, &raw);
  if (code == 0) {
    const OwnedCursor cursor(raw);
    code = put_all(raw, changes, applied);
  }
  if (code == 0) {
    code = ::mdb_txn_commit(txn.release());
  }
  if (code == MDB_MAP_FULL) {
    return false;
  }
  if (code != 0) {
    return lmdb_error(code, "cannot write a checkpoint to the metadata base");
  }
  return true;
}

Result<void> LmdbBase::apply(const Memtable& changes, const AppliedRecord& record) {
  if (unreadable_) {
    return std::unexpected(*unreadable_);
  }
  for (;;) {
    const Result<bool> applied = try_apply(changes, record);
    if (!applied) {
      recover_from_panic();
      return std::unexpected(applied.error());
    }
    if (*applied) {
      return cover_all_pages(false);
    }
    ODX_TRY(grow());
  }
}

// A store that has failed is still read. What LMDB's file holds is the state before or after the
// transaction that failed, as at any opening; both are right below a memtable that has it all.
void LmdbBase::recover_from_panic() {
  MDB_txn* probe = nullptr;
  const int code = ::mdb_txn_begin(env_.get(), nullptr, MDB_RDONLY, &probe);
  if (code == 0) {
    ::mdb_txn_abort(probe);
    return;
  }
  if (code != MDB_PANIC) {
    return;
  }
  MDB_envinfo info{};
  ::mdb_env_info(env_.get(), &info);
  std::unique_lock lock(mutex_);
  growing_ = true;
  slot_freed_.wait(lock, [this] { return in_use_ == 0; });
  idle_.clear();
  env_.reset();  // LMDB bears one environment at a time
  Result<Env> opened = open_env(directory_, info.me_mapsize, 0);
  Result<void> usable = opened ? Result<void>() : std::unexpected(opened.error());
  if (opened) {
    env_ = *std::move(opened);
    usable = open_database(false);
  }
  if (!usable) {
    unreadable_ = usable.error();
  }
  growing_ = false;
  lock.unlock();
  slot_freed_.notify_all();
}

Result<void> LmdbBase::grow() {
  const std::uint64_t bytes = ODX_TRY(map_bytes()) * 2;
  std::unique_lock lock(mutex_);
  growing_ = true;
  slot_freed_.wait(lock, [this] { return in_use_ == 0; });
  const int code = ::mdb_env_set_mapsize(env_.get(), bytes);
  growing_ = false;
  lock.unlock();
  slot_freed_.notify_all();
  if (code != 0) {
    return lmdb_error(code, "cannot grow the map of the metadata base");
  }
  return {};
}

Result<std::uint64_t> LmdbBase::map_bytes() const {
  MDB_envinfo info{};
  if (const int code = ::mdb_env_info(env_.get(), &info); code != 0) {
    return lmdb_error(code, "cannot ask for the map of the metadata base");
  }
  return info.me_mapsize;
}

}  // namespace odx
