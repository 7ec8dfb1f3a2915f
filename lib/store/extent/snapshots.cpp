#include "store/extent/snapshots.hpp"

#include <algorithm>
#include <utility>

namespace odx {

Snapshot::Snapshot(Snapshot&& other) noexcept
    : owner_(std::exchange(other.owner_, nullptr)), seq_(other.seq_) {}

Snapshot& Snapshot::operator=(Snapshot&& other) noexcept {
  std::swap(owner_, other.owner_);
  std::swap(seq_, other.seq_);
  return *this;
}

Snapshot::~Snapshot() {
  if (owner_ != nullptr) {
    owner_->drop(seq_);
  }
}

SpaceHold::SpaceHold(SpaceHold&& other) noexcept
    : owner_(std::exchange(other.owner_, nullptr)), id_(other.id_) {}

SpaceHold::~SpaceHold() {
  if (owner_ != nullptr) {
    owner_->drop_hold(id_);
  }
}

bool SpaceHold::revoked() const { return id_ < owner_->revoked_before_; }

Snapshot Snapshots::take() {
  const std::lock_guard lock(mutex_);
  ++active_[published_];
  return {this, published_};
}

void Snapshots::publish(TxnSeq seq) {
  const std::lock_guard lock(mutex_);
  published_ = seq;
}

TxnSeq Snapshots::oldest() const {
  const std::lock_guard lock(mutex_);
  return oldest_locked();
}

TxnSeq Snapshots::oldest_locked() const {
  return active_.empty() ? published_ : active_.begin()->first;
}

void Snapshots::wait_past(TxnSeq seq, std::chrono::milliseconds most) {
  std::unique_lock lock(mutex_);
  ++waiting_;
  ended_.wait_for(lock, most, [&] { return oldest_locked() >= seq; });
  --waiting_;
}

void Snapshots::drop(TxnSeq seq) {
  const std::lock_guard lock(mutex_);
  const auto at = active_.find(seq);
  if (--at->second == 0) {
    active_.erase(at);
    if (waiting_ > 0) {
      ended_.notify_all();
    }
  }
}

SpaceHold Snapshots::hold() {
  const std::lock_guard lock(mutex_);
  const std::uint64_t id = next_hold_++;
  holds_.emplace(id, published_);
  return {this, id};
}

bool Snapshots::end_holds() {
  std::unique_lock lock(mutex_);
  if (holds_.empty()) {
    return false;
  }
  const std::uint64_t later = next_hold_;
  revoked_before_ = later;
  hold_ended_.wait(lock, [&] { return holds_.empty() || holds_.begin()->first >= later; });
  return true;
}

TxnSeq Snapshots::oldest_held() const {
  const std::lock_guard lock(mutex_);
  const TxnSeq oldest = active_.empty() ? published_ : active_.begin()->first;
  return holds_.empty() ? oldest : std::min(oldest, holds_.begin()->second);
}

void Snapshots::drop_hold(std::uint64_t id) {
  {
    const std::lock_guard lock(mutex_);
    holds_.erase(id);
  }
  hold_ended_.notify_all();
}

}  // namespace odx
