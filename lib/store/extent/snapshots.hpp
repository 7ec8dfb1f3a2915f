// Which points in time readers still look at. A reader takes a Snapshot, then loads a root no
// newer than it; old versions of nodes and freed blocks stay until no snapshot is that old.
//
// A SpaceHold keeps freed blocks only, and for as long as a whole check may take: for whoever reads
// the metadata from elsewhere (MetaStore::frozen_view). Old versions of nodes do not pile up in
// memory behind it, and it is given up when space runs short.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <map>
#include <mutex>

#include "base/types.hpp"

namespace odx {

class Snapshots;

class Snapshot {
 public:
  Snapshot() = default;
  Snapshot(Snapshot&& other) noexcept;
  Snapshot& operator=(Snapshot&& other) noexcept;
  Snapshot(const Snapshot&) = delete;
  Snapshot& operator=(const Snapshot&) = delete;
  ~Snapshot();
  // Everything up to this transaction is visible, nothing behind it.
  [[nodiscard]] TxnSeq seq() const { return seq_; }

 private:
  friend class Snapshots;
  Snapshot(Snapshots* owner, TxnSeq seq) : owner_(owner), seq_(seq) {}
  Snapshots* owner_ = nullptr;
  TxnSeq seq_;
};

class SpaceHold {
 public:
  SpaceHold(SpaceHold&& other) noexcept;
  SpaceHold& operator=(SpaceHold&&) = delete;
  ~SpaceHold();
  // Somebody waits for the space: the holder is to end soon. Any thread.
  [[nodiscard]] bool revoked() const;

 private:
  friend class Snapshots;
  SpaceHold(Snapshots* owner, std::uint64_t id) : owner_(owner), id_(id) {}
  Snapshots* owner_;
  std::uint64_t id_;
};

// Thread-safe.
class Snapshots {
 public:
  // A snapshot of the newest published transaction.
  Snapshot take();
  // Called with the mutation lock held, when transaction `seq` is visible everywhere.
  void publish(TxnSeq seq);
  // No snapshot, now or later, is older than this.
  [[nodiscard]] TxnSeq oldest() const;
  // Waits, at most that long, until oldest() is `seq` or later.
  void wait_past(TxnSeq seq, std::chrono::milliseconds most);

  // Blocks that the newest published transaction names are not reused until the hold ends.
  SpaceHold hold();
  // Revokes all holds and waits until they have ended. False: there were none.
  bool end_holds();
  // As oldest(), and no hold is older either.
  [[nodiscard]] TxnSeq oldest_held() const;

 private:
  friend class Snapshot;
  friend class SpaceHold;
  void drop(TxnSeq seq);
  void drop_hold(std::uint64_t id);
  mutable std::mutex mutex_;
  TxnSeq published_;
  [[nodiscard]] TxnSeq oldest_locked() const;
  std::map<TxnSeq, std::uint64_t> active_;
  std::map<std::uint64_t, TxnSeq> holds_;  // ids and transactions ascend together
  std::uint64_t next_hold_ = 1;
  std::atomic<std::uint64_t> revoked_before_{0};  // holds of lower ids are to end
  std::condition_variable hold_ended_;
  std::condition_variable ended_;
  std::size_t waiting_ = 0;
};

}  // namespace odx
