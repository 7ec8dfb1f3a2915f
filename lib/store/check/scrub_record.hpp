// What of a scrub survives an unmount and a crash: table `L`, records `scrub` and `scrub-report`.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.hpp"
#include "base/types.hpp"

namespace odx {

struct ScrubRecord {
  enum class State : std::uint8_t { kActive = 0, kPaused = 1, kDone = 2, kCancelled = 3 };
  State state = State::kActive;
  std::uint64_t pass = 0;
  std::uint64_t rate = 0;  // bytes a second; all ones: no limit
  std::int64_t started_ns = 0;
  std::int64_t changed_ns = 0;
  std::uint64_t active_ns = 0;
  std::uint64_t position = 0;  // block
  std::uint64_t done_blocks = 0;
  std::uint64_t damaged_blocks = 0;
  std::uint64_t damaged_owners = 0;

  [[nodiscard]] std::string encode() const;
  static Result<ScrubRecord> decode(std::string_view bytes);
  friend bool operator==(const ScrubRecord&, const ScrubRecord&) = default;
};

// The report of a pass.
struct ScrubReport {
  static constexpr std::size_t kMaxBytes = 256 << 10;
  std::uint64_t pass = 0;
  std::string text;  // lines

  [[nodiscard]] std::string encode() const;
  static Result<ScrubReport> decode(std::string_view bytes);
};

inline constexpr std::string_view kScrubOperation = "scrub";
inline constexpr std::string_view kScrubReportOperation = "scrub-report";

}  // namespace odx
