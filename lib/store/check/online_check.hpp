// The check of a store in use, as a job in the background.
#pragma once

#include <atomic>
#include <mutex>
#include <string>
#include <thread>

#include "base/result.hpp"
#include "odx/offload.h"
#include "store/check/check.hpp"
#include "store/core.hpp"

namespace odx {

class OnlineCheck {
 public:
  explicit OnlineCheck(Core& core) : core_(core) {}
  ~OnlineCheck() { stop(); }

  // As ODX_IOC_CHECK: does the operation and fills `call` in. Any thread; waits for nothing.
  Result<void> control(odx_check& call);

  // Ends a job that runs; there are no more.
  void stop();

 private:
  Result<void> start(std::uint32_t flags);  // with mutex_ held
  void fill(odx_check& call) const;         // with mutex_ held
  void run(bool data);
  Result<CheckReport> check(bool data);
  void show_progress(std::string_view what, std::uint64_t done, std::uint64_t total);

  Core& core_;
  std::atomic<bool> cancelled_{false};  // the job is to end

  mutable std::mutex mutex_;
  bool stopping_ = false;
  std::thread thread_;
  std::uint64_t job_ = 0;
  std::uint32_t flags_ = 0;
  odx_check_state state_ = ODX_CHECK_NEVER;
  int error_ = 0;
  std::string phase_;
  std::uint64_t phase_done_ = 0;
  std::uint64_t phase_total_ = 0;
  CheckReport counts_;  // without its problems
  std::string text_;
};

}  // namespace odx
