// Which points in time readers still look at. A reader takes a Snapshot, then loads a root no
// newer than it; old versions of nodes and freed blocks stay until no snapshot is that old.
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

 private:
  friend class Snapshot;
  void drop(TxnSeq seq);
  mutable std::mutex mutex_;
  TxnSeq published_;
  [[nodiscard]] TxnSeq oldest_locked() const;
  std::map<TxnSeq, std::uint64_t> active_;
  std::condition_variable ended_;
  std::size_t waiting_ = 0;
};

}  // namespace odx
