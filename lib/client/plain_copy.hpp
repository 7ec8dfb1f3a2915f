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

// Called after every step, in ascending order of offsets.
using StepDone =
    std::function<Result<void>(odx_copy_way way, std::uint64_t offset, std::uint64_t length)>;

// Copies [from, size). Answers with where the source ended, which is less than `size` if it was cut
// short meanwhile.
Result<std::uint64_t> copy_plainly(const PlainCopy& job, const StepDone& done);

}  // namespace odx::client
