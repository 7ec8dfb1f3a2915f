// The checkpointer: the one thread that writes frozen memtables into LMDB.
#include <algorithm>
#include <mutex>
#include <new>
#include <utility>

#include "store/meta/meta_store_impl.hpp"

namespace odx {

Result<void> MetaStoreImpl::submit_checkpoint(CheckpointJob job) {
  if (job.changes != nullptr) {
    // The one before gives its layer back, so that the next can be frozen, a moment before it ends.
    ODX_TRY(wait_checkpoint_slot());
  }
  {
    const std::lock_guard lock(mutex_);
    if (job.changes != nullptr) {
      ODX_CHECK(!checkpoint_running_);
      checkpoint_running_ = true;
      job_ = std::move(job);
    } else {
      // Everything is in LMDB already.
      tickets_done_ = std::max(tickets_done_, job.ticket);
    }
  }
  checkpointer_wakes_.notify_one();
  progress_.notify_all();
  return {};
}

Result<void> MetaStoreImpl::wait_checkpoint_slot() {
  std::unique_lock lock(mutex_);
  progress_.wait(lock, [this] { return !checkpoint_running_ || failure_; });
  if (failure_) {
    return std::unexpected(*failure_);
  }
  return {};
}

void MetaStoreImpl::run_checkpointer() {
  std::unique_lock lock(mutex_);
  for (;;) {
    checkpointer_wakes_.wait(lock, [this] { return job_ || flusher_gone_; });
    if (!job_) {
      return;
    }
    CheckpointJob job = *std::exchange(job_, std::nullopt);
    lock.unlock();
    const Result<void> written = catching([&] { return write_checkpoint(job); });
    if (!written) {
      enter_failed(written.error());
      return;
    }
    job.changes.reset();  // here, as it may take a while
    lock.lock();
    checkpoint_running_ = false;
    tickets_done_ = std::max(tickets_done_, job.ticket);
    flusher_wakes_.notify_one();
    progress_.notify_all();
  }
}

Result<void> MetaStoreImpl::write_checkpoint(const CheckpointJob& job) {
  try {
    ODX_TRY(base_->apply(*job.changes, job.record));
  } catch (const std::bad_alloc&) {
    return fail(ENOMEM);
  }
  {
    const std::unique_lock lock(state_lock_);
    frozen_.reset();
    ++layers_changed_;
  }
  // Only now that LMDB's commit is durable may the ring's batches be overwritten.
  journal_->release(job.record.next);
  checkpoints_ += 1;
  return {};
}

}  // namespace odx
