// Extended attributes, access lists among them, from one open file to another.
#pragma once

#include "base/result.hpp"

namespace odx::cli {

// What the destination's filesystem or the caller's rights do not allow is left out, as `cp -a`
// does.
Result<void> copy_xattrs(int from, int to);

}  // namespace odx::cli
