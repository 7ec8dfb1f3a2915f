// The flusher: the one thread that seals batches and makes them durable.
#include <algorithm>
#include <mutex>
#include <new>
#include <utility>

#include "store/meta/meta_store_impl.hpp"

namespace odx {

std::uint64_t MetaStoreImpl::flush_at_bytes() const {
  // Well below what one append takes, so that only a huge transaction goes around the journal.
  return std::min(options_.batch_bytes, journal_->max_payload_bytes() / 2);
}

bool MetaStoreImpl::flush_due() const {
  return awaited_ > sealed_ || open_bytes_ >= flush_at_bytes() ||
         (flush_time_ && SteadyClock::now() >= *flush_time_);
}

bool MetaStoreImpl::checkpoint_due() const {
  const bool ring_filling = journal_->used_bytes() > journal_->ring_bytes() / 2;
  return !checkpoint_running_ &&
         (tickets_ > tickets_started_ || memtable_bytes_ >= options_.memtable_bytes ||
          (ring_filling && memtable_bytes_ > 0));
}

void MetaStoreImpl::run_flusher() {
  std::unique_lock lock(mutex_);
  while (!stopping_ && !failure_) {
    const bool with_checkpoint = checkpoint_due();
    if (!with_checkpoint && !flush_due()) {
      if (flush_time_) {
        flusher_wakes_.wait_until(lock, *flush_time_);
      } else {
        flusher_wakes_.wait(lock);
      }
      continue;
    }
    if (with_checkpoint) {
      tickets_started_ = tickets_;
    }
    const std::uint64_t ticket = with_checkpoint ? tickets_started_ : 0;
    // Before sealing: a commit that comes after it starts the timer anew.
    flush_time_.reset();
    lock.unlock();
    const Result<void> flushed = catching([&] { return flush(with_checkpoint, ticket); });
    if (!flushed) {
      enter_failed(flushed.error());
    }
    lock.lock();
  }
}

std::optional<MetaStoreImpl::Sealed> MetaStoreImpl::seal(bool with_checkpoint) {
  const std::unique_lock lock(state_lock_);
  Sealed sealed;
  sealed.journalled = open_.empty() || journal_->has_room(open_.payload_bytes());
  const bool freeze = !sealed.journalled || (with_checkpoint && !memtable_->empty());
  if (freeze && frozen_ != nullptr) {
    return std::nullopt;
  }
  // Taken first: from here on nothing may fail.
  std::shared_ptr<Memtable> next = freeze ? std::make_shared<Memtable>() : nullptr;
  sealed.upto = committed();
  sealed.batch = open_.seal(memtable_);
  if (freeze) {
    frozen_ = memtable_;
    sealed.frozen = frozen_;
    memtable_ = std::move(next);
    ++layers_changed_;
    memtable_bytes_ = 0;
  }
  open_bytes_ = open_.payload_bytes();
  sealed_ = sealed.upto.value();
  return sealed;
}

Result<void> MetaStoreImpl::flush(bool with_checkpoint, std::uint64_t ticket) {
  std::optional<Sealed> sealed = seal(with_checkpoint);
  while (!sealed) {
    ODX_TRY(wait_checkpoint_slot());
    sealed = seal(with_checkpoint);
  }
  { const std::lock_guard lock(mutex_); }
  progress_.notify_all();  // there is room in the open batch

  if (sealed->upto > durable()) {
    ODX_TRY(sync_data_());
  }
  if (sealed->journalled && !sealed->batch.changes.empty()) {
    ODX_TRY(append(sealed->batch));
  }
  CheckpointJob job{sealed->frozen, {journal_->next_lsn() - 1, journal_->next_position()}, ticket};
  if (sealed->journalled) {
    announce_durable(sealed->upto);
    ODX_TRY(submit_checkpoint(std::move(job)));
  } else {
    ODX_TRY(submit_checkpoint(std::move(job)));
    ODX_TRY(wait_checkpoint_slot());
    announce_durable(sealed->upto);
  }
  return {};
}

Result<void> MetaStoreImpl::append(const SealedBatch& batch) {
  batch.encode(payload_);
  ODX_TRY(journal_->append(payload_));
  flushes_ += 1;
  journal_bytes_ += payload_.size();
  return {};
}

void MetaStoreImpl::announce_durable(TxnSeq upto) {
  if (upto == durable()) {
    return;
  }
  {
    const std::lock_guard lock(mutex_);
    durable_ = upto.value();
  }
  progress_.notify_all();
  on_durable_(upto);
}

}  // namespace odx
