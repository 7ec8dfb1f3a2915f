// The store's own thread: takes dropped subtrees apart, ends tokens whose time has come.
#pragma once

#include <atomic>
#include <chrono>
#include <thread>

#include "store/core.hpp"
#include "store/token/tokens.hpp"

namespace odx {

// Takes queued subtrees apart, in bounded transactions, until the queue holds nothing but damaged
// ones, or until `stop` is set. Any thread.
Result<void> reclaim_queue(Core& core, const std::atomic<bool>* stop = nullptr);

class Background {
 public:
  Background(Core& core, Tokens& tokens);
  // Finishes the transaction at hand and joins: what is still queued waits for the next open.
  ~Background();

 private:
  void run();
  // How long there is nothing more to do.
  std::chrono::nanoseconds work();
  Core& core_;
  Tokens& tokens_;
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

}  // namespace odx
