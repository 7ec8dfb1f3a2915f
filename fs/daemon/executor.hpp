// A few threads for requests that must not be served by a thread that receives requests.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace odx::daemon {

// Thread-safe. Jobs must not throw; they answer their request on the device that the submitting
// thread received it from (see ReplyDevice).
class Executor {
 public:
  explicit Executor(unsigned threads);
  ~Executor() { stop(); }
  Executor(const Executor&) = delete;
  Executor& operator=(const Executor&) = delete;

  // False once stop() has begun; the job is not taken then.
  [[nodiscard]] bool submit(std::function<void()> job);

  // Does what was submitted, then ends the threads. The receiving threads must still be serving.
  void stop();

 private:
  struct Job {
    int reply_device;
    std::function<void()> work;
  };
  void run();

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Job> jobs_;
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace odx::daemon
