// LMDB as the store uses it: one database of sealed values, many short readers, and a writer that
// comes by at checkpoints. Owns every LMDB object. A process opens one environment once, and does
// not fork while it is open.
#pragma once

#include <lmdb.h>

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "base/types.hpp"
#include "store/journal/journal.hpp"
#include "store/meta/memtable.hpp"

namespace odx {

// The journal batches that LMDB contains: all up to `lsn`; the next one starts at `next`.
struct AppliedRecord {
  Lsn lsn{0};
  JournalPosition next;
  bool closed = false;  // no append at `next` was ever begun
  friend bool operator==(const AppliedRecord&, const AppliedRecord&) = default;
};

class LmdbBase {
  struct ReadSlot;

 public:
  // A view of LMDB as it was when it was taken. It keeps old pages from being reused, so it is
  // short-lived, or ends when wants_to_grow(). One thread at a time.
  class Snapshot {
   public:
    Snapshot(Snapshot&&) noexcept;
    Snapshot& operator=(Snapshot&&) = delete;
    ~Snapshot();

    [[nodiscard]] Result<std::optional<std::string>> get(std::string_view key) const;

    // A walk in key order. At most one per snapshot at a time.
    class Cursor {
     public:
      // Moves to the first key at or after `from` (not empty), or to the next key.
      Result<void> seek(std::string_view from);
      Result<void> next();
      [[nodiscard]] bool at_end() const { return at_end_; }
      // Parts of the map: good as long as the snapshot. Not at the end.
      [[nodiscard]] std::string_view key() const { return key_; }
      [[nodiscard]] Result<std::string_view> value() const;

     private:
      friend class Snapshot;
      explicit Cursor(MDB_cursor* cursor) : cursor_(cursor) {}
      Result<void> move(MDB_val key, MDB_cursor_op op);

      MDB_cursor* cursor_;
      std::string_view key_;
      std::string_view sealed_;
      bool at_end_ = true;
    };
    [[nodiscard]] Result<Cursor> cursor() const;

   private:
    friend class LmdbBase;
    Snapshot(const LmdbBase& base, std::unique_ptr<ReadSlot> slot);

    const LmdbBase* base_;
    std::unique_ptr<ReadSlot> slot_;
  };

  // Creates the directory with an empty database and an applied record in it, durable on return
  // but for the directory's own name.
  static Result<void> format(const std::string& directory);

  // `map_bytes` is the address space to start with. Read-only: nothing on disk changes, and nobody
  // else may be writing.
  static Result<std::unique_ptr<LmdbBase>> open(const std::string& directory,
                                                std::uint64_t map_bytes, bool read_only);
  ~LmdbBase();
  LmdbBase(const LmdbBase&) = delete;
  LmdbBase& operator=(const LmdbBase&) = delete;

  // Any thread. Waits only while too many others read or the map grows; does no I/O to speak of.
  [[nodiscard]] Result<Snapshot> snapshot() const;

  [[nodiscard]] Result<AppliedRecord> applied() const;

  // Writes all of `changes` and the record in one durable transaction. One thread at a time.
  Result<void> apply(const Memtable& changes, const AppliedRecord& record);

  // Every snapshot is waited for by whoever wants to write: long ones are to end.
  [[nodiscard]] bool wants_to_grow() const { return growing_; }

  // The address space in use, which grows as needed.
  [[nodiscard]] Result<std::uint64_t> map_bytes() const;

 private:
  struct CloseEnv {
    void operator()(MDB_env* env) const { ::mdb_env_close(env); }
  };
  using Env = std::unique_ptr<MDB_env, CloseEnv>;

  LmdbBase(Env env, std::string directory);
  static Result<Env> open_env(const std::string& directory, std::uint64_t map_bytes,
                              unsigned flags);
  [[nodiscard]] Result<void> cover_all_pages(bool read_only) const;
  [[nodiscard]] Result<void> open_database(bool read_only);
  // One attempt at apply(); false if the map was too small.
  Result<bool> try_apply(const Memtable& changes, const AppliedRecord& record);
  Result<void> grow();
  // After a write that failed: LMDB may have given up the whole environment, reading included.
  void recover_from_panic();
  void give_back(std::unique_ptr<ReadSlot> slot) const;

  const std::string directory_;
  Env env_;  // replaced only while nobody is inside
  MDB_dbi dbi_ = 0;

  // Read transactions that rest between snapshots: beginning one anew costs far more.
  mutable std::mutex mutex_;
  mutable std::condition_variable slot_freed_;
  mutable std::vector<std::unique_ptr<ReadSlot>> idle_;
  mutable std::size_t in_use_ = 0;
  std::atomic<bool> growing_{false};  // changed under mutex_
  std::optional<Error> unreadable_;  // why there is no environment any more
};

}  // namespace odx
