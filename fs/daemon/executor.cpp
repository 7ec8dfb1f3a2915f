#include "executor.hpp"

#include <utility>

#include "reply.hpp"

namespace odx::daemon {

Executor::Executor(unsigned threads) {
  try {
    for (unsigned i = 0; i < threads; ++i) {
      threads_.emplace_back([this] { run(); });
    }
  } catch (...) {
    stop();
    throw;
  }
}

bool Executor::submit(std::function<void()> job) {
  {
    const std::lock_guard lock(mutex_);
    if (stopping_) {
      return false;
    }
    jobs_.push_back({ReplyDevice::current(), std::move(job)});
  }
  wake_.notify_one();
  return true;
}

void Executor::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  for (std::thread& thread : threads_) {
    if (thread.joinable()) {
      thread.join();
    }
  }
}

void Executor::run() {
  std::unique_lock lock(mutex_);
  for (;;) {
    wake_.wait(lock, [this] { return stopping_ || !jobs_.empty(); });
    if (jobs_.empty()) {
      return;
    }
    const Job job = std::move(jobs_.front());
    jobs_.pop_front();
    lock.unlock();
    ReplyDevice::use(job.reply_device);
    job.work();
    lock.lock();
  }
}

}  // namespace odx::daemon
