#include "hurry.hpp"

#include <algorithm>
#include <utility>

namespace odx::daemon {

Hurry::Hurry(std::chrono::milliseconds grace, std::function<void()> action)
    : grace_(grace), action_(std::move(action)), thread_([this] { run(); }) {}

Hurry::~Hurry() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  thread_.join();
}

Hurry::Watch::Watch(Hurry& hurry) : hurry_(hurry) {
  const std::lock_guard lock(hurry_.mutex_);
  entry_ = hurry_.watched_.insert(hurry_.watched_.end(),
                                  {std::chrono::steady_clock::now() + hurry_.grace_});
  hurry_.wake_.notify_all();
}

Hurry::Watch::~Watch() {
  std::unique_lock lock(hurry_.mutex_);
  hurry_.idle_.wait(lock, [this] { return !hurry_.acting_; });
  hurry_.watched_.erase(entry_);
}

void Hurry::run() {
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    const auto next = std::ranges::find(watched_, false, &Entry::helped);
    if (next == watched_.end()) {
      wake_.wait(lock);
      continue;
    }
    const auto now = std::chrono::steady_clock::now();
    if (now < next->deadline) {
      wake_.wait_until(lock, std::chrono::steady_clock::time_point(next->deadline));
      continue;
    }
    for (Entry& entry : watched_) {
      entry.helped = entry.helped || entry.deadline <= now;
    }
    acting_ = true;
    lock.unlock();
    action_();
    lock.lock();
    acting_ = false;
    idle_.notify_all();
  }
}

}  // namespace odx::daemon
