// Copying without tokens: copy_file_range(2) as long as it works, then reading and writing.
#pragma once

#include <cstdint>
#include <functional>

#include "base/result.hpp"
#include "odx/odx.h"

namespace odx::client {

struct PlainCopy {
  int source;
  int destination;
  std::uint64_t from;  // the destination is all zeros from here on
  std::uint64_t size;  // the source's; 0: unknown, read until there is nothing more
  bool sparse;         // look for holes and step over them
  // Most bytes of one copy_file_range. Big where that only shares extents.
  std::uint64_t step;
};

// Copies [from, size), adding to the report's cloned, copied and skipped bytes and calling
// `progress` after every step. Answers with where the source ended, which is less than `size` if it
// was cut short meanwhile.
Result<std::uint64_t> copy_plainly(const PlainCopy& job, odx_copy_report& report,
                                   const std::function<Result<void>()>& progress);

}  // namespace odx::client
