// The inside of MetaStore; meta_store.cpp opens with how it works.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "store/meta/batch.hpp"
#include "store/meta/lmdb_base.hpp"
#include "store/meta/memtable.hpp"
#include "store/meta/meta_store.hpp"
#include "store/meta/state_lock.hpp"

namespace odx {

class MetaStoreImpl final : public MetaStore {
 public:
  MetaStoreImpl(std::unique_ptr<LmdbBase> base, std::unique_ptr<Journal> journal,
                const MetaOptions& options, std::function<Result<void>()> sync_data,
                std::function<void(TxnSeq)> on_durable);
  ~MetaStoreImpl() override;

  // Replays the journal, then starts the threads unless the store is read-only. Call once, first.
  Result<void> start();

  Result<std::optional<std::string>> get(std::string_view key) const override;
  Result<std::vector<KeyValue>> scan(std::string_view from, std::string_view end,
                                     std::size_t limit) const override;
  Result<std::optional<std::string>> get_stamped(std::string_view key,
                                                 TxnSeq& stamp) const override;
  Result<std::unique_ptr<KvReader>> frozen_view() override;
  [[nodiscard]] TxnSeq committed() const override { return TxnSeq(committed_.load()); }
  [[nodiscard]] TxnSeq durable() const override { return TxnSeq(durable_.load()); }
  Result<TxnSeq> commit(WriteSet writes) override;
  Result<void> throttle() override;
  Result<void> wait_durable(TxnSeq seq) override;
  Result<void> checkpoint() override;
  Result<void> close() override;
  [[nodiscard]] Result<void> health() const override;
  [[nodiscard]] MetaStats stats() const override;

 private:
  using SteadyClock = std::chrono::steady_clock;

  // The newest changes in some range and the base under them, as of one moment.
  struct View;
  [[nodiscard]] Result<View> view(std::string_view from, std::string_view end,
                                  std::size_t limit) const;

  // A memtable on its way into LMDB.
  struct CheckpointJob {
    std::shared_ptr<const Memtable> changes;
    AppliedRecord record;
    std::uint64_t ticket = 0;  // of the newest checkpoint() call that it serves
  };

  // What the flusher took out of the shared state in one step.
  struct Sealed {
    SealedBatch batch;
    TxnSeq upto;                             // the newest transaction inside
    std::shared_ptr<const Memtable> frozen;  // set if a checkpoint begins here
    bool journalled = true;  // false: that checkpoint makes it durable, not the journal
  };

  // Keys whose deletion leaves nothing behind: no layer below the memtable has them. True as long
  // as layers_changed_ stays what it was. What cannot be read counts as there: a commit does not
  // depend on the old value of what it deletes.
  struct Deletions {
    std::uint64_t layers = 0;
    std::vector<bool> nothing_below;  // one for each change that is a deletion, in order
  };
  [[nodiscard]] Deletions look_below(const std::vector<Memtable::Change>& changes) const;
  // Takes back in LMDB that the journal is empty, before anything is committed.
  Result<void> leave_closed_state();

  // flusher.cpp
  void run_flusher();
  [[nodiscard]] bool flush_due() const;       // with mutex_ held
  [[nodiscard]] bool checkpoint_due() const;  // with mutex_ held
  Result<void> flush(bool with_checkpoint, std::uint64_t ticket);
  // Takes the open batch; nothing if it has to wait for the running checkpoint.
  std::optional<Sealed> seal(bool with_checkpoint);
  Result<void> append(const SealedBatch& batch);
  void announce_durable(TxnSeq upto);
  [[nodiscard]] std::uint64_t flush_at_bytes() const;

  // checkpoint.cpp
  void run_checkpointer();
  // Waits for the checkpoint before it, if that still runs.
  Result<void> submit_checkpoint(CheckpointJob job);
  // Waits until no checkpoint runs. Fails if one has failed.
  Result<void> wait_checkpoint_slot();
  Result<void> write_checkpoint(const CheckpointJob& job);

  // The answer of `work`; ENOMEM if it ran out of memory: the threads' loops end by no exception.
  template <class Work>
  static Result<void> catching(Work work) {
    try {
      return work();
    } catch (const std::exception& error) {
      return fail(ENOMEM, error.what());
    }
  }

  // Enters the failed state, unless it is already entered, and wakes everybody.
  void enter_failed(const Error& error);
  // Why nothing can be committed, if so.
  [[nodiscard]] Result<void> check_writable() const;
  void stop_threads();
  // Notes in LMDB that the journal is empty, if it is. After the threads have ended.
  Result<void> mark_closed();

  const MetaOptions options_;
  const std::function<Result<void>()> sync_data_;
  const std::function<void(TxnSeq)> on_durable_;
  const std::unique_ptr<LmdbBase> base_;
  const std::unique_ptr<Journal> journal_;
  bool read_only_ = false;  // this and the next two are fixed by start()
  JournalEnd replay_end_ = JournalEnd::kClean;
  std::uint64_t replayed_batches_ = 0;

  // The state that readers see, and the batch that must agree with it. Changed only under the
  // exclusive side.
  mutable StateLock state_lock_;
  std::shared_ptr<Memtable> memtable_ = std::make_shared<Memtable>();
  std::shared_ptr<const Memtable> frozen_;  // on its way into LMDB; null when none is
  std::uint64_t layers_changed_ = 0;        // moves whenever what lies below memtable_ changes
  OpenBatch open_;
  std::atomic<std::uint64_t> committed_{0};
  std::atomic<std::uint64_t> sealed_{0};  // the newest transaction that is in no open batch
  // Copies of the sizes, for those who only decide when to act.
  std::atomic<std::uint64_t> open_bytes_{0};
  std::atomic<std::uint64_t> memtable_bytes_{0};

  // The flow of work. Whatever a thread waits for changes under mutex_, or under state_lock_ and
  // then mutex_ is taken before the notification, so that none is lost.
  mutable std::mutex mutex_;
  std::condition_variable flusher_wakes_;
  std::condition_variable checkpointer_wakes_;
  std::condition_variable progress_;  // sealed, durable, checkpointed, failed or stopping
  std::atomic<std::uint64_t> durable_{0};
  std::uint64_t awaited_ = 0;                          // newest transaction somebody waits for
  std::optional<SteadyClock::time_point> flush_time_;  // when the timer goes off
  std::uint64_t tickets_ = 0;                          // checkpoint() calls so far
  std::uint64_t tickets_started_ = 0;                  // of which the flusher has seen so many
  std::uint64_t tickets_done_ = 0;
  std::optional<CheckpointJob> job_;
  bool checkpoint_running_ = false;  // from submission to end
  bool stopping_ = false;            // the flusher ends
  bool flusher_gone_ = false;        // then the checkpointer ends
  std::optional<Error> failure_;
  std::atomic<bool> writable_{true};  // not failed, read-only or closed

  AppliedRecord applied_;  // by start() and close(): in LMDB while closed_
  std::mutex closed_mutex_;
  std::atomic<bool> closed_{false};  // LMDB says that no append was ever begun at applied_.next
  std::string payload_;              // the flusher's buffer
  std::atomic<std::uint64_t> flushes_{0};
  std::atomic<std::uint64_t> journal_bytes_{0};
  std::atomic<std::uint64_t> checkpoints_{0};

  std::thread checkpointer_;
  std::thread flusher_;
};

}  // namespace odx
