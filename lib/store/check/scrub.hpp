// The scrub of a store in use: every used block is read once and compared with its checksum.
// scrub.cpp opens with how it works.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/bell.hpp"
#include "base/result.hpp"
#include "odx/offload.h"
#include "store/check/block_verifier.hpp"
#include "store/check/scrub_record.hpp"
#include "store/core.hpp"

namespace odx {

struct ScrubOptions {
  std::chrono::nanoseconds save_interval =
      std::chrono::seconds(2);  // how often the position is kept
  std::chrono::nanoseconds confirm_interval = std::chrono::seconds(30);  // of looking at suspects
};

class Scrub {
 public:
  explicit Scrub(Core& core, const ScrubOptions& options = {}) : core_(core), options_(options) {}
  // As a crash: nothing more is written.
  ~Scrub() { end_thread(); }

  // Reads where an earlier mount stood. Once, first.
  void load();

  // As ODX_IOC_SCRUB: does the operation and fills `call` in. `own_thread`: starts the thread that
  // does the work, if there is none; else the caller calls step(). Any thread; waits for nothing.
  Result<void> control(odx_scrub& call, bool own_thread = true);

  // The next piece of work, if it is time for it. Answers how long there is none. One thread.
  std::chrono::nanoseconds step();

  // Ends the thread, and keeps the position. It cannot be started again.
  void stop();

 private:
  using Nanoseconds = std::chrono::nanoseconds;
  // Where a pass goes on, if what is behind it need not be looked at again.
  struct Place {
    std::uint64_t position = 0;
    std::uint64_t done_blocks = 0;
  };
  struct Findings;

  // These with mutex_ held:
  Result<void> apply(const odx_scrub& call);
  void fill(odx_scrub& call) const;
  void begin_pass();
  void change_state(odx_scrub_state state);
  void append(const Findings& found);

  void end_thread();
  void run();
  [[nodiscard]] Nanoseconds guarded_step();
  void take_up(std::uint64_t pass);
  [[nodiscard]] Nanoseconds work(std::uint64_t rate);
  void account_time(std::uint64_t rate);
  [[nodiscard]] Nanoseconds rest(std::uint64_t rate) const;
  Result<bool> verify_some(std::uint64_t most_blocks);
  [[nodiscard]] bool confirm_due() const;
  Result<void> confirm();
  Result<Findings> look_again();
  [[nodiscard]] Nanoseconds finish_pass();
  void save_if_due(bool now);
  Result<void> save();
  void fail_with(const Error& error);

  Core& core_;
  const ScrubOptions options_;
  std::atomic<bool> stopping_{false};
  Bell bell_;

  // What people see and ask for.
  mutable std::mutex mutex_;
  ScrubRecord now_;  // position: of the next block to read
  odx_scrub_state state_ = ODX_SCRUB_NEVER;
  int error_ = 0;
  std::string report_;
  bool report_full_ = false;
  std::uint64_t saved_position_ = 0;
  std::size_t suspect_count_ = 0;
  bool changed_ = false;  // not saved yet
  bool report_changed_ = false;
  std::optional<Place> safe_;  // before the first suspect; none: now_ itself
  std::thread thread_;

  // Of the thread that works.
  std::uint64_t pass_ = 0;         // that the following belongs to
  std::vector<std::uint64_t> suspects_;  // blocks, ascending
  std::vector<BlockRun> runs_;
  std::vector<check::BadBlock> bad_;
  std::optional<check::BlockVerifier> verifier_;
  std::int64_t last_ns_ = 0;  // of the clock; 0: it stood still
  double allowance_ = 0;      // bytes that may be read now
  std::int64_t saved_ns_ = 0;
  std::int64_t suspected_ns_ = 0;  // since when there are suspects
  Nanoseconds confirm_took_{0};
  bool save_failed_ = false;
  unsigned troubles_ = 0;  // exceptions in a row
};

}  // namespace odx
