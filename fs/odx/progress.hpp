// The progress bar of a copy: one line on a terminal, redrawn at most ten times a second.
#pragma once

#include <chrono>
#include <cstdint>
#include <iosfwd>

namespace odx::cli {

// Not thread-safe. Draws nothing unless `stream` is a terminal (see is_terminal).
class Progress {
 public:
  explicit Progress(std::ostream& stream);
  ~Progress() { clear(); }
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  [[nodiscard]] bool shown() const { return shown_; }
  // What there is to do in all, in bytes; 0 (nothing known) draws no bar.
  void set_total(std::uint64_t bytes) { total_ = bytes; }
  // A file begins, or is done: `bytes` of it count from now on as finished.
  void finish_file(std::uint64_t bytes);
  // The current file has got this far. The bar's rate is by its own clock, or by the caller's.
  void update(std::uint64_t bytes_of_file);
  void update(std::uint64_t bytes_of_file, double elapsed_seconds);
  // Takes the bar away so that another line can be written.
  void clear();

 private:
  using SteadyClock = std::chrono::steady_clock;

  std::ostream& stream_;
  bool shown_;
  bool drawn_ = false;
  std::uint64_t total_ = 0;
  std::uint64_t finished_ = 0;
  SteadyClock::time_point start_ = SteadyClock::now();
  SteadyClock::time_point last_{};
};

}  // namespace odx::cli
