// The records of operations that go on after a crash.
#pragma once

#include "store/check/findings.hpp"

namespace odx::check {

Result<void> check_long_operations(const KvReader& kv, Findings& findings);

}  // namespace odx::check
