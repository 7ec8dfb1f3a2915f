// How much of the host's space a store takes: growth, holes, and a new limit.
#pragma once

#include <cstdint>
#include <string>

#include "base/result.hpp"
#include "store/core.hpp"

namespace odx {

// A store has at least this much room for data.
inline constexpr std::uint64_t kMinStoreBytes = 16ULL << 20;

// What a change of the limit found and did. All in bytes.
struct ResizeReport {
  std::uint64_t limit_before = 0;
  std::uint64_t limit = 0;  // in force now
  std::uint64_t exists_before = 0;
  std::uint64_t exists = 0;  // of the segments that exist now
  std::uint64_t least = 0;   // the least limit that would be taken now
};

// Lets the store of `dir` grow up to `bytes` (rounded down to whole blocks) from now on. What
// exists behind a lower limit is cut off, and the host has its space back; if any of it is in use,
// EBUSY, and nothing changes. EINVAL: less than kMinStoreBytes, or too much. `report` is filled in
// whatever happens. Survives a crash wholly or not at all; a cut that a crash interrupts is
// finished by the next open.
Result<void> resize(Core& core, const std::string& dir, std::uint64_t bytes, ResizeReport& report);

// The report alone.
[[nodiscard]] ResizeReport size_of(const Core& core);

// Before there are threads: finishes what a crash interrupted, and learns of holes.
Result<void> settle_host_space(Core& core);

}  // namespace odx
