// Threads that work at once in a test.
#pragma once

#include <atomic>
#include <functional>
#include <thread>
#include <utility>
#include <vector>

namespace odx::test {

// Catch2 counts assertions without a lock, so threads count their complaints instead.
class Crew {
 public:
  // `work` is called again and again; false is a complaint.
  void add(int times, std::function<bool(int)> work) {
    threads_.emplace_back([this, times, work = std::move(work)] {
      for (int i = 0; i < times; ++i) {
        if (!work(i)) {
          ++complaints_;
        }
      }
    });
  }
  // The same until `stop` is set.
  void add_until(const std::atomic<bool>& stop, std::function<bool(int)> work) {
    threads_.emplace_back([this, &stop, work = std::move(work)] {
      for (int i = 0; !stop; ++i) {
        if (!work(i)) {
          ++complaints_;
        }
      }
    });
  }
  int finish() {
    for (std::thread& thread : threads_) {
      thread.join();
    }
    threads_.clear();
    return complaints_;
  }

 private:
  std::vector<std::thread> threads_;
  std::atomic<int> complaints_{0};
};

}  // namespace odx::test
