// What one thread rings to have another look up from its rest.
#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <utility>

namespace odx {

// Thread-safe. It outlives both threads, so that whoever rings need not know whether anybody
// listens.
class Bell {
 public:
  void ring() {
    {
      const std::lock_guard lock(mutex_);
      rung_ = true;
    }
    changed_.notify_all();
  }

  // Returns once it has rung since the last call, or after `most`. True: it has rung. One call
  // answers all rings so far; there is one listener.
  bool wait_for(std::chrono::nanoseconds most) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, most, [this] { return rung_; });
    return std::exchange(rung_, false);
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool rung_ = false;
};

}  // namespace odx
