// Pairs of filesystems between which offloading does not work (odx-rules.md 3.1#7), so that a copy
// of a tree does not ask for every file. One for the process; any thread may use it.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <map>
#include <mutex>
#include <optional>
#include <utility>

#include "odx/odx.h"

namespace odx::client {

class NegativeCache {
 public:
  using Clock = std::chrono::steady_clock;
  // What is mounted may change, so nothing is believed for longer.
  static constexpr std::chrono::seconds kBelieved{180};

  struct Answer {
    odx_copy_note note = ODX_COPY_WHOLE;
    int error = 0;  // positive
    odx_result result{};
  };

  [[nodiscard]] std::optional<Answer> find(dev_t source, dev_t destination,
                                           Clock::time_point now = Clock::now());
  void remember(dev_t source, dev_t destination, const Answer& answer,
                Clock::time_point now = Clock::now());
  void forget(dev_t source, dev_t destination);

  static NegativeCache& of_process();

 private:
  struct Entry {
    Answer answer;
    Clock::time_point until;
  };
  std::mutex mutex_;
  std::map<std::pair<dev_t, dev_t>, Entry> entries_;
};

}  // namespace odx::client
