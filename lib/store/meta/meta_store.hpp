// Durable ordered key/value state: a memtable over LMDB, made durable by the ring journal.
//
// commit() makes a write set visible at once; it is durable after the next flush. The flusher
// thread seals the open batch, syncs the data device, and appends the batch to the journal; all
// waiters wake together. A checkpoint freezes the memtable at a sealed batch, writes it into LMDB
// with the position of the journal behind that batch in one LMDB transaction, and releases the
// ring. A failed sync, append or LMDB write puts the store into the failed state for good: every
// later commit and wait answers with the first error.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "base/result.hpp"
#include "base/types.hpp"
#include "store/journal/journal.hpp"
#include "store/meta/kv.hpp"

namespace odx {

struct MetaOptions {
  std::chrono::milliseconds flush_interval{1000};  // 0 = only on demand
  std::uint64_t batch_bytes = 4ULL << 20;          // an open batch this big is flushed at once
  std::uint64_t memtable_bytes = 64ULL << 20;      // a memtable this big is checkpointed
  std::uint64_t map_bytes = 64ULL << 30;  // LMDB's address space to start with; grows by itself
  bool read_only = false;                 // replays into memory only; nothing on disk changes
  // For a repair: a journal that is damaged inside its chain is cut there, for good; what it held
  // up to the damage goes into LMDB before anything else is written.
  bool drop_damaged_tail = false;
};

struct MetaStats {
  std::uint64_t commits = 0;
  std::uint64_t flushes = 0;        // journal batches
  std::uint64_t journal_bytes = 0;  // payload appended
  std::uint64_t checkpoints = 0;
  std::uint64_t memtable_bytes = 0;
  JournalEnd replay_end = JournalEnd::kClean;
  std::uint64_t replayed_batches = 0;
};

class MetaStore : public KvReader {
 public:
  // Creates `meta/` and `journal` below `store_dir`, empty, durable on return.
  static Result<void> format(const std::string& store_dir, std::uint64_t ring_bytes);

  // `sync_data` makes all data writes that returned before it durable; `on_durable` is told, on
  // the flusher's thread and with no lock held, each time durable() has moved; neither of them may
  // wait for durability or call checkpoint() or close(). The store opens
  // read-only by itself (see failed()) if the journal is damaged inside its chain.
  static Result<std::unique_ptr<MetaStore>> open(const std::string& store_dir, const Uuid& uuid,
                                                 const MetaOptions& options,
                                                 std::function<Result<void>()> sync_data,
                                                 std::function<void(TxnSeq)> on_durable);

  ~MetaStore() override = default;

  // KvReader: reads the committed state. Any thread. A value that fails its checksum is corruption.

  // As get(), and says in `stamp` a transaction number that is at least that of the newest
  // transaction the answer contains.
  virtual Result<std::optional<std::string>> get_stamped(std::string_view key,
                                                         TxnSeq& stamp) const = 0;

  // checkpoint(), then the state at one border of transactions, not before the call: it does not
  // change, and nobody waits for it. For long walks by one thread; the metadata's file grows
  // meanwhile, as old pages are kept. It ends, and then answers with EAGAIN, when the map has to
  // grow. A store that is open read-only does not change by itself. It must not outlive this.
  virtual Result<std::unique_ptr<KvReader>> frozen_view() = 0;

  // The newest committed (visible, perhaps not durable) transaction; 0 before the first.
  [[nodiscard]] virtual TxnSeq committed() const = 0;
  // Every transaction up to this one is durable.
  [[nodiscard]] virtual TxnSeq durable() const = 0;

  // Makes `writes` visible as one transaction and queues it. The caller makes sure that commits
  // come one at a time (the store mutation lock). Fails only in the failed or read-only state.
  virtual Result<TxnSeq> commit(WriteSet writes) = 0;

  // Waits while the open batch is too large to take more. Call it before the store mutation lock.
  virtual Result<void> throttle() = 0;

  // Waits until durable() >= seq (a committed number), flushing now.
  virtual Result<void> wait_durable(TxnSeq seq) = 0;

  // Flushes, then moves everything into LMDB and empties the ring.
  virtual Result<void> checkpoint() = 0;

  // checkpoint(), then stops the threads. Without it (a crash), the destructor only stops them.
  virtual Result<void> close() = 0;

  // The first fatal error, if any: the store no longer accepts commits.
  [[nodiscard]] virtual Result<void> health() const = 0;
  [[nodiscard]] virtual MetaStats stats() const = 0;
};

}  // namespace odx
