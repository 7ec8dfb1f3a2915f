// Whose data damaged blocks are.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "store/check/findings.hpp"

namespace odx::check {

struct DamagedRange {
  std::uint64_t offset = 0;
  std::uint64_t bytes = 0;
};

// A file or a token whose data lies in damaged blocks.
struct DamageOwner {
  // A file:
  InodeNo ino;
  std::string path;  // one of its names, in quotes; empty if it has none
  // A token, if it has text:
  std::string token;
  // What of it is damaged, ascending, neighbours merged; the first ones, if there are more.
  std::vector<DamagedRange> ranges;
  bool more_ranges = false;

  // `inode 7, "/a"`, "inode 7, which has no name", "token 0123...".
  [[nodiscard]] std::string text() const;
};

struct TraceLimits {
  std::size_t owners = SIZE_MAX;  // further ones are counted, not described
  std::size_t ranges = 64;        // of one owner
};

struct DamageTrace {
  std::vector<std::uint64_t> owned;  // those of the blocks that a file or a token names, ascending
  std::uint64_t owners = 0;
  bool complete = true;  // false: records that could lead to owners are unreadable
};

// Calls `each` with everything that names one of these blocks (ascending).
Result<DamageTrace> trace_damage(const KvReader& kv, const std::vector<std::uint64_t>& blocks,
                                 const TraceLimits& limits,
                                 const std::function<void(const DamageOwner&)>& each);

// Adds a problem for every file and token that names one of these blocks (ascending).
Result<void> name_damage_owners(const CheckSubject& subject,
                                const std::vector<std::uint64_t>& blocks, Findings& findings);

}  // namespace odx::check
