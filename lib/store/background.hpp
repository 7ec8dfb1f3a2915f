// The store's own thread: takes dropped subtrees apart, ends tokens whose time has come.
#pragma once

#include <condition_variable>
#include <mutex>
#include <thread>

#include "store/core.hpp"
#include "store/token/tokens.hpp"

namespace odx {

// Takes queued subtrees apart, in bounded transactions, until the queue is empty. Any thread.
Result<void> reclaim_queue(Core& core);

class Background {
 public:
  Background(Core& core, Tokens& tokens);
  // Finishes the transaction at hand and joins.
  ~Background();
  void wake();

 private:
  void run();
  Core& core_;
  Tokens& tokens_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool work_ = true;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace odx
