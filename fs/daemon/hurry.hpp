// Help for those whose work takes long.
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <list>
#include <mutex>
#include <thread>

namespace odx::daemon {

// While a Watch is older than the grace period, `action` is run on a thread of its own, once for
// the watch (or once for several that are due together). Thread-safe.
class Hurry {
 public:
  Hurry(std::chrono::milliseconds grace, std::function<void()> action);
  ~Hurry();
  Hurry(const Hurry&) = delete;
  Hurry& operator=(const Hurry&) = delete;

 private:
  struct Entry {
    std::chrono::steady_clock::time_point deadline;
    bool helped = false;
  };

 public:
  class Watch {
   public:
    explicit Watch(Hurry& hurry);
    ~Watch();  // waits for the action if it is running
    Watch(const Watch&) = delete;
    Watch& operator=(const Watch&) = delete;

   private:
    Hurry& hurry_;
    std::list<Entry>::iterator entry_;
  };

 private:
  void run();
  const std::chrono::milliseconds grace_;
  const std::function<void()> action_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::condition_variable idle_;
  std::list<Entry> watched_;  // oldest first
  bool acting_ = false;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace odx::daemon
