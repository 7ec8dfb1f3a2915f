#include "store/token/token_usage.hpp"

#include <utility>

#include "store/token/tokens.hpp"

namespace odx {

namespace {

// Tombstones outlive their tokens by a minute and nobody's limit counts them; this keeps a user who
// makes tokens of a millisecond from filling the table with them.
constexpr std::uint64_t kMaxTombstonesPerUid = 100'000;

}  // namespace

TokenUsage::Admission::Admission(Admission&& other) noexcept
    : owner_(std::exchange(other.owner_, nullptr)),
      uid_(other.uid_),
      data_bytes_(other.data_bytes_) {}

TokenUsage::Admission::~Admission() {
  if (owner_ != nullptr) {
    owner_->remove_live(uid_, data_bytes_);
  }
}

TokenUsage::Admission TokenUsage::admit(std::uint32_t uid, std::uint64_t data_bytes,
                                        const TokenOptions& limits) {
  const std::lock_guard lock(mutex_);
  const auto found = users_.find(uid);
  const OfUser user = found == users_.end() ? OfUser{} : found->second;
  // Written so that nothing can overflow, whatever the limits.
  if (live_ >= limits.max_total || user.live >= limits.max_per_uid ||
      user.tombstones >= kMaxTombstonesPerUid || pinned_bytes_ > limits.max_pinned_bytes ||
      data_bytes > limits.max_pinned_bytes - pinned_bytes_) {
    return {};
  }
  ++users_[uid].live;
  ++live_;
  pinned_bytes_ += data_bytes;
  return {this, uid, data_bytes};
}

void TokenUsage::add_live(std::uint32_t uid, std::uint64_t data_bytes) {
  const std::lock_guard lock(mutex_);
  ++users_[uid].live;
  ++live_;
  pinned_bytes_ += data_bytes;
}

void TokenUsage::add_tombstone(std::uint32_t uid) {
  const std::lock_guard lock(mutex_);
  ++users_[uid].tombstones;
  ++tombstones_;
}

void TokenUsage::remove_live(std::uint32_t uid, std::uint64_t data_bytes) {
  const std::lock_guard lock(mutex_);
  --users_[uid].live;
  --live_;
  pinned_bytes_ -= data_bytes;
  forget_if_unused(uid);
}

void TokenUsage::live_to_tombstone(std::uint32_t uid, std::uint64_t data_bytes) {
  const std::lock_guard lock(mutex_);
  OfUser& user = users_[uid];
  --user.live;
  ++user.tombstones;
  --live_;
  ++tombstones_;
  pinned_bytes_ -= data_bytes;
}

void TokenUsage::remove_tombstone(std::uint32_t uid) {
  const std::lock_guard lock(mutex_);
  --users_[uid].tombstones;
  --tombstones_;
  forget_if_unused(uid);
}

std::uint64_t TokenUsage::live() const {
  const std::lock_guard lock(mutex_);
  return live_;
}

std::uint64_t TokenUsage::pinned_bytes() const {
  const std::lock_guard lock(mutex_);
  return pinned_bytes_;
}

std::uint64_t TokenUsage::tombstones() const {
  const std::lock_guard lock(mutex_);
  return tombstones_;
}

void TokenUsage::forget_if_unused(std::uint32_t uid) {
  const auto found = users_.find(uid);
  if (found != users_.end() && found->second.live == 0 && found->second.tombstones == 0) {
    users_.erase(found);
  }
}

}  // namespace odx
