#include "store/token/token_usage.hpp"

#include <algorithm>
#include <utility>

#include "store/token/tokens.hpp"

namespace odx {

namespace {

// Tombstones outlive their tokens by a minute and nobody's limit counts them; this keeps a user who
// makes tokens of a millisecond from filling the table with them. Only his own READs are refused.
constexpr std::uint64_t kMaxTombstonesPerUid = 100'000;

bool within(unsigned __int128 held, std::uint64_t more, std::uint64_t limit) {
  return limit == TokenOptions::kUnlimited || held + more <= limit;
}

std::uint64_t narrow(unsigned __int128 sum) {
  return static_cast<std::uint64_t>(std::min<unsigned __int128>(sum, UINT64_MAX));
}

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

void TokenUsage::Admission::keep() {
  if (TokenUsage* owner = std::exchange(owner_, nullptr)) {
    const std::lock_guard lock(owner->mutex_);
    owner->note_peak();
  }
}

TokenUsage::Admission TokenUsage::admit(std::uint32_t uid, std::uint64_t data_bytes,
                                        const TokenOptions& limits) {
  const std::lock_guard lock(mutex_);
  if (!fits(uid, data_bytes, limits)) {
    return {};
  }
  add(uid, data_bytes);
  return {this, uid, data_bytes};
}

bool TokenUsage::has_room(std::uint32_t uid, std::uint64_t data_bytes,
                          const TokenOptions& limits) const {
  const std::lock_guard lock(mutex_);
  return fits(uid, data_bytes, limits);
}

bool TokenUsage::fits(std::uint32_t uid, std::uint64_t data_bytes,
                      const TokenOptions& limits) const {
  const auto found = users_.find(uid);
  const OfUser user = found == users_.end() ? OfUser{} : found->second;
  return live_ < limits.max_total && user.live < limits.max_per_uid &&
         user.tombstones < kMaxTombstonesPerUid &&
         within(pinned_bytes_, data_bytes, limits.max_pinned_bytes) &&
         within(user.pinned_bytes, data_bytes, limits.max_pinned_bytes_per_uid);
}

void TokenUsage::add_live(std::uint32_t uid, std::uint64_t data_bytes) {
  const std::lock_guard lock(mutex_);
  add(uid, data_bytes);
  note_peak();
}

void TokenUsage::add_tombstone(std::uint32_t uid) {
  const std::lock_guard lock(mutex_);
  ++users_[uid].tombstones;
  ++tombstones_;
}

void TokenUsage::remove_live(std::uint32_t uid, std::uint64_t data_bytes) {
  const std::lock_guard lock(mutex_);
  subtract(uid, data_bytes);
  forget_if_unused(uid);
}

void TokenUsage::live_to_tombstone(std::uint32_t uid, std::uint64_t data_bytes) {
  const std::lock_guard lock(mutex_);
  ++subtract(uid, data_bytes).tombstones;
  ++tombstones_;
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
  return narrow(pinned_bytes_);
}

std::uint64_t TokenUsage::tombstones() const {
  const std::lock_guard lock(mutex_);
  return tombstones_;
}

std::uint64_t TokenUsage::most_live() const {
  const std::lock_guard lock(mutex_);
  return most_live_;
}

std::uint64_t TokenUsage::most_pinned_bytes() const {
  const std::lock_guard lock(mutex_);
  return narrow(most_pinned_bytes_);
}

void TokenUsage::add(std::uint32_t uid, std::uint64_t data_bytes) {
  OfUser& user = users_[uid];
  ++user.live;
  user.pinned_bytes += data_bytes;
  ++live_;
  pinned_bytes_ += data_bytes;
}

TokenUsage::OfUser& TokenUsage::subtract(std::uint32_t uid, std::uint64_t data_bytes) {
  OfUser& user = users_[uid];
  --user.live;
  user.pinned_bytes -= data_bytes;
  --live_;
  pinned_bytes_ -= data_bytes;
  return user;
}

void TokenUsage::note_peak() {
  most_live_ = std::max(most_live_, live_);
  most_pinned_bytes_ = std::max(most_pinned_bytes_, pinned_bytes_);
}

void TokenUsage::forget_if_unused(std::uint32_t uid) {
  const auto found = users_.find(uid);
  if (found != users_.end() && found->second.live == 0 && found->second.tombstones == 0) {
    users_.erase(found);
  }
}

}  // namespace odx
