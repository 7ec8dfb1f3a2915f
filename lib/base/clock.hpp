// Time as the store sees it. Tests hand in a clock that they move by hand.
#pragma once

#include <atomic>
#include <cstdint>

namespace odx {

class Clock {
 public:
  virtual ~Clock() = default;
  // Nanoseconds since 1970-01-01 UTC. Wall time, because tokens outlive the process.
  [[nodiscard]] virtual std::int64_t now_ns() const = 0;

  // The system's real-time clock; lives for ever.
  static const Clock& system();
};

// Stands still until told otherwise. Thread-safe.
class ManualClock final : public Clock {
 public:
  explicit ManualClock(std::int64_t start_ns) : now_ns_(start_ns) {}
  [[nodiscard]] std::int64_t now_ns() const override { return now_ns_.load(); }
  void advance_ns(std::int64_t by) { now_ns_.fetch_add(by); }

 private:
  std::atomic<std::int64_t> now_ns_;
};

inline constexpr std::int64_t kNsPerSecond = 1'000'000'000;
inline constexpr std::int64_t kNsPerMs = 1'000'000;

}  // namespace odx
